namespace Unikraft.Platform.Volumes;

/// <summary>How a journal of volumes is kept.</summary>
internal sealed record VolumeJournalOptions
{
    /// <summary>It is written anew when it is longer than this and three times what it began with.</summary>
    internal int MinRewriteLength { get; init; } = 1 << 20;
}
