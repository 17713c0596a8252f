using Unikraft.Platform.Hypervisors;

namespace Unikraft.Platform.Kvm.Boot;

/// <summary>The arguments and the environment of a guest, checked.</summary>
/// <param name="Arguments">The arguments, the program's name first.</param>
/// <param name="Environment">Entries of the form <c>NAME=value</c>.</param>
internal sealed record GuestStrings(IReadOnlyList<string> Arguments, IReadOnlyList<string> Environment)
{
    /// <exception cref="InvalidRequestException">A string cannot be passed to a guest.</exception>
    internal static GuestStrings From(MachineConfiguration configuration)
    {
        GuestStrings strings = new(
            [configuration.Name, .. configuration.Args],
            [.. configuration.Env.Select(static pair => $"{pair.Key}={pair.Value}")]);
        foreach (string text in strings.Arguments.Concat(strings.Environment))
        {
            if (text.Contains('\0', StringComparison.Ordinal))
            {
                throw new InvalidRequestException("Arguments and environment cannot contain a NUL character.");
            }
        }

        foreach (string name in configuration.Env.Keys)
        {
            if (name.Length == 0 || name.Contains('=', StringComparison.Ordinal))
            {
                throw new InvalidRequestException($"'{name}' is not a name of an environment variable: it is empty or contains '='.");
            }
        }

        return strings;
    }
}
