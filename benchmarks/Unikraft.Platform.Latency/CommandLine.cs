namespace Unikraft.Platform.Latency;

/// <summary>What the caller wants.</summary>
/// <param name="JsonPath">Where the results go.</param>
/// <param name="Measures">The names of the measures; empty for all.</param>
/// <param name="IsQuick">Whether few samples are enough.</param>
internal sealed record CommandLine(string JsonPath, IReadOnlyList<string> Measures, bool IsQuick)
{
    /// <summary>Parses arguments.</summary>
    /// <param name="arguments">The arguments.</param>
    /// <param name="known">The names of all measures.</param>
    /// <param name="problem">What is wrong with them, when the result is <see langword="null"/>.</param>
    internal static CommandLine? Parse(IReadOnlyList<string> arguments, IReadOnlyList<string> known, out string? problem)
    {
        string? jsonPath = null;
        List<string> measures = [];
        bool isQuick = false;
        for (int i = 0; i < arguments.Count; i++)
        {
            string? value = i + 1 < arguments.Count ? arguments[i + 1] : null;
            switch (arguments[i])
            {
                case "--quick":
                    isQuick = true;
                    continue;
                case "--json" when value is not null:
                    jsonPath = value;
                    break;
                case "--measure" when value is not null && known.Contains(value, StringComparer.Ordinal):
                    measures.Add(value);
                    break;
                case "--measure" when value is not null:
                    problem = $"There is no measure '{value}'.";
                    return null;
                case "--json" or "--measure":
                    problem = $"{arguments[i]} needs a value.";
                    return null;
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
        return problem is null ? new CommandLine(jsonPath!, measures, isQuick) : null;
    }
}
