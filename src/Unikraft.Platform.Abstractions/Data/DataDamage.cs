namespace Unikraft.Platform;

/// <summary>Something in a data directory that is not as it was written.</summary>
/// <param name="Path">The file.</param>
/// <param name="Message">What is wrong, to follow the name of the file.</param>
/// <param name="Dependents">The UUIDs of the resources that depend on it; empty when none does, or all do.</param>
public sealed record DataDamage(string Path, string Message, IReadOnlyList<Guid> Dependents)
{
    /// <summary>The file, what is wrong with it, and what depends on it.</summary>
    public override string ToString() =>
        $"'{Path}' {Message}{(Dependents.Count == 0 ? "" : $"; needed by {string.Join(", ", Dependents)}")}";
}
