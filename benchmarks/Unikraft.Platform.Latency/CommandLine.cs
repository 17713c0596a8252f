using System.Globalization;

namespace Unikraft.Platform.Latency;

/// <summary>What the caller wants.</summary>
/// <param name="JsonPath">Where the results go.</param>
/// <param name="Measures">The names of the measures; empty for all.</param>
/// <param name="Samples">The number of samples in each row; <see langword="null"/> for what each measure thinks right.</param>
/// <param name="Rows">The number of rows of each measure; <see langword="null"/> for all.</param>
/// <param name="IsQuick">Whether few samples are enough.</param>
internal sealed record CommandLine(string JsonPath, IReadOnlyList<string> Measures, int? Samples, int? Rows, bool IsQuick)
{
    /// <summary>Parses arguments.</summary>
    /// <param name="arguments">The arguments.</param>
    /// <param name="known">The names of all measures.</param>
    /// <param name="problem">What is wrong with them, when the result is <see langword="null"/>.</param>
    internal static CommandLine? Parse(IReadOnlyList<string> arguments, IReadOnlyList<string> known, out string? problem)
    {
        string? jsonPath = null;
        List<string> measures = [];
        int? samples = null;
        int? rows = null;
        bool isQuick = false;
        for (int i = 0; i < arguments.Count; i++)
        {
            string? value = i + 1 < arguments.Count ? arguments[i + 1] : null;
            switch (arguments[i])
            {
                case "--quick":
                    isQuick = true;
                    continue;
                case "--json" or "--measure" or "--measures" or "--samples" or "--rows" when value is null:
                    problem = $"{arguments[i]} needs a value.";
                    return null;
                case "--json":
                    jsonPath = value;
                    break;
                case "--measure" or "--measures":
                    string[] names = value!.Split(',', StringSplitOptions.TrimEntries | StringSplitOptions.RemoveEmptyEntries);
                    if (names.FirstOrDefault(name => !known.Contains(name, StringComparer.Ordinal)) is { } unknown)
                    {
                        problem = $"There is no measure '{unknown}'.";
                        return null;
                    }

                    measures.AddRange(names);
                    break;
                case "--samples" or "--rows":
                    if (!int.TryParse(value, NumberStyles.None, CultureInfo.InvariantCulture, out int number) || number == 0)
                    {
                        problem = $"'{value}' is not a number of {arguments[i][2..]}.";
                        return null;
                    }

                    if (string.Equals(arguments[i], "--rows", StringComparison.Ordinal))
                    {
                        rows = number;
                    }
                    else
                    {
                        samples = number;
                    }

                    break;
                default:
                    problem = $"'{arguments[i]}' is not understood.";
                    return null;
            }

            i++;
        }

        problem = jsonPath switch
        {
            null => "--json is missing.",
            _ when Directory.Exists(jsonPath) => $"'{jsonPath}' is a folder, not a file.",
            _ when Path.GetDirectoryName(Path.GetFullPath(jsonPath)) is { } folder && !Directory.Exists(folder) => $"There is no folder '{folder}'.",
            _ => null,
        };
        return problem is null ? new CommandLine(jsonPath!, measures, samples, rows, isQuick) : null;
    }
}
