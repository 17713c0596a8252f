using System.Buffers;
using System.Collections.ObjectModel;

namespace Unikraft.Platform.Instances;

/// <summary>What callers note on instances, and what is made of them has as well.</summary>
internal static class Annotations
{
    private const int Max = 256;
    private const int MaxName = 63;
    private const int MaxPrefix = 253;

    private static readonly SearchValues<char> s_inNames = SearchValues.Create("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.");
    private static readonly SearchValues<char> s_inPrefixes = SearchValues.Create("abcdefghijklmnopqrstuvwxyz0123456789-");

    /// <summary>Annotations with further ones, which replace those with their keys.</summary>
    /// <exception cref="InvalidRequestException">They are not allowed, or too many.</exception>
    public static IReadOnlyDictionary<string, string> With(this IReadOnlyDictionary<string, string> annotations, IReadOnlyDictionary<string, string>? added)
    {
        if (added is null or { Count: 0 })
        {
            return annotations;
        }

        Dictionary<string, string> merged = new(annotations, StringComparer.Ordinal);
        foreach ((string key, string value) in added)
        {
            Require(key, value);
            merged[key] = value;
        }

        return merged.Count <= Max
            ? merged.AsReadOnly()
            : throw new InvalidRequestException($"'annotations' would have {merged.Count} entries; allowed are up to {Max}");
    }

    /// <summary>Annotations after changes of them; others are passed over.</summary>
    /// <exception cref="InvalidRequestException">One of the changes is not allowed.</exception>
    public static IReadOnlyDictionary<string, string> After(this IReadOnlyDictionary<string, string> annotations, IEnumerable<PatchOperation> operations) =>
        operations.Aggregate(annotations, static (now, operation) => operation switch
        {
            PatchOperation.SetAnnotations set => ReadOnlyDictionary<string, string>.Empty.With(set.Annotations ?? throw NoValue()),
            PatchOperation.AddAnnotations add => now.With(add.Annotations ?? throw NoValue()),
            PatchOperation.DelAnnotations del => Without(now, del.Keys ?? throw NoValue()),
            _ => now,
        });

    public static bool IsOfAnnotations(PatchOperation operation) =>
        operation is PatchOperation.SetAnnotations or PatchOperation.AddAnnotations or PatchOperation.DelAnnotations;

    private static ReadOnlyDictionary<string, string> Without(IReadOnlyDictionary<string, string> annotations, IReadOnlyList<string> keys) =>
        annotations.Where(entry => !keys.Contains(entry.Key, StringComparer.Ordinal)).ToDictionary(StringComparer.Ordinal).AsReadOnly();

    private static InvalidRequestException NoValue() => new("A patch of 'annotations' has no value");

    private static void Require(string key, string? value)
    {
        int slash = key.IndexOf('/', StringComparison.Ordinal);
        bool hasName = IsName(key.AsSpan(slash + 1), MaxName, s_inNames);
        bool hasPrefix = slash < 0 || (slash is > 0 and <= MaxPrefix && Array.TrueForAll(key[..slash].Split('.'), static label => IsName(label, MaxName, s_inPrefixes)));
        if (!hasName || !hasPrefix)
        {
            throw new InvalidRequestException(
                $"Invalid annotation key '{key}': a name of 1 to {MaxName} letters, digits and '-', '_', '.' is needed, with or without a lower-case DNS name and '/' before it");
        }

        if (value is null || value.AsSpan().ContainsAnyInRange('\0', '\u001f') || value.Contains('\u007f', StringComparison.Ordinal))
        {
            throw new InvalidRequestException($"The annotation '{key}' has a value that is null or has control characters");
        }
    }

    private static bool IsName(ReadOnlySpan<char> name, int max, SearchValues<char> allowed) =>
        name.Length > 0 && name.Length <= max && !name.ContainsAnyExcept(allowed) && char.IsAsciiLetterOrDigit(name[0]) && char.IsAsciiLetterOrDigit(name[^1]);
}
