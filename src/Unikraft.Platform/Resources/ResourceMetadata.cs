using System.Buffers;
using System.Collections.Immutable;

namespace Unikraft.Platform.Resources;

/// <summary>What can be patched of a resource, whatever its kind.</summary>
internal sealed record ResourceMetadata(ImmutableList<string> Tags, bool DeleteLock, AutokillPolicy? Autokill)
{
    private const int MaxTags = 16;
    private const int MaxTagLength = 256;

    private static readonly SearchValues<char> AllowedInTags =
        SearchValues.Create("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-+_.:=");

    public static ResourceMetadata None { get; } = new([], DeleteLock: false, Autokill: null);

    /// <exception cref="InvalidRequestException">A tag or the policy breaks the rules.</exception>
    public static ResourceMetadata Of(IReadOnlyList<string>? tags, bool deleteLock, AutokillPolicy? autokill) =>
        new(Union([], tags ?? []), deleteLock, Normalize(autokill));

    /// <exception cref="InvalidRequestException">One of the operations is not allowed.</exception>
    public ResourceMetadata Apply(IReadOnlyList<PatchOperation> operations) =>
        operations.Aggregate(this, (metadata, operation) => metadata.Apply(operation));

    private static ImmutableList<string> Union(ImmutableList<string> tags, IReadOnlyList<string> added)
    {
        RequireTags(added);
        ImmutableList<string> union = [.. tags.Union(added, StringComparer.Ordinal)];
        return union.Count <= MaxTags
            ? union
            : throw new InvalidRequestException($"'tags' would have {union.Count} entries; allowed are up to {MaxTags}");
    }

    private static ImmutableList<string> Except(ImmutableList<string> tags, IReadOnlyList<string> removed)
    {
        RequireTags(removed);
        return tags.RemoveAll(tag => removed.Contains(tag, StringComparer.Ordinal));
    }

    private static AutokillPolicy? Normalize(AutokillPolicy? policy)
    {
        Durations.RequireAutokill(policy?.Time);
        return policy?.Time == TimeSpan.Zero ? null : policy;
    }

    private static void RequireTags(IReadOnlyList<string>? tags)
    {
        foreach (string tag in tags ?? throw new InvalidRequestException("'tags' is null; no tags are an empty list"))
        {
            if (tag is null or "" or { Length: > MaxTagLength } || tag.AsSpan().ContainsAnyExcept(AllowedInTags))
            {
                throw new InvalidRequestException(
                    $"Invalid tag '{tag}': 1 to {MaxTagLength} letters, digits and the characters - + _ . : = are allowed");
            }
        }
    }

    /// <summary>Whether an operation changes what is here, and not something that only instances have.</summary>
    public static bool Concerns(PatchOperation? operation) => operation
        is null
        or PatchOperation.AddTags
        or PatchOperation.DelTags
        or PatchOperation.SetTags
        or PatchOperation.SetDeleteLock
        or PatchOperation.SetAutokill;

    private ResourceMetadata Apply(PatchOperation? operation) => operation switch
    {
        PatchOperation.AddTags add => this with { Tags = Union(Tags, add.Tags) },
        PatchOperation.DelTags del => this with { Tags = Except(Tags, del.Tags) },
        PatchOperation.SetTags set => this with { Tags = Union([], set.Tags) },
        PatchOperation.SetDeleteLock set => this with { DeleteLock = set.Enabled },
        PatchOperation.SetAutokill set => this with { Autokill = Normalize(set.Policy) },
        null => throw new InvalidRequestException("A patch operation is null"),
        _ => throw new InvalidRequestException($"'{operation.GetType().Name}' is for instances only; allowed are changes of tags, delete_lock and autokill"),
    };
}
