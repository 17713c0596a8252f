namespace Unikraft.Platform.Volumes;

/// <summary>A change of what is written down of volumes, which is made as a whole or not at all.</summary>
internal sealed record VolumeChange
{
    /// <summary>Volumes as they are from now on.</summary>
    public IReadOnlyList<VolumeRecord> Set { get; init; } = [];

    /// <summary>Volumes that are gone.</summary>
    public IReadOnlyList<Guid> Removed { get; init; } = [];
}
