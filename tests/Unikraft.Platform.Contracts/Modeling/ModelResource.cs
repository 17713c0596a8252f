namespace Unikraft.Platform.Contracts.Modeling;

/// <summary>What instances, checkpoints and templates have in common.</summary>
public abstract class ModelResource
{
    /// <summary>The tags.</summary>
    public IReadOnlyList<string> Tags { get; set; } = [];

    /// <summary>Whether deletion is refused.</summary>
    public bool IsLocked { get; set; }

    /// <summary>The autokill policy.</summary>
    public TimeSpan? Autokill { get; set; }

    /// <summary>Since when it has not been used; <see langword="null"/> while it is.</summary>
    public TimeSpan? UnusedSince { get; set; }

    /// <summary>When it is removed.</summary>
    public TimeSpan? AutokillDue => IsLocked ? null : UnusedSince + Autokill;

    /// <summary>Applies an operation of a patch.</summary>
    /// <param name="operation">The operation.</param>
    public void Apply(PatchOperation operation)
    {
        switch (operation)
        {
            case PatchOperation.AddTags add:
                Tags = [.. Tags.Concat(add.Tags).Distinct(StringComparer.Ordinal)];
                break;
            case PatchOperation.DelTags del:
                Tags = [.. Tags.Where(tag => !del.Tags.Contains(tag, StringComparer.Ordinal))];
                break;
            case PatchOperation.SetTags set:
                Tags = [.. set.Tags.Distinct(StringComparer.Ordinal)];
                break;
            case PatchOperation.SetDeleteLock set:
                IsLocked = set.Enabled;
                break;
            case PatchOperation.SetAutokill set:
                Autokill = set.Policy?.Time;
                break;
        }
    }
}
