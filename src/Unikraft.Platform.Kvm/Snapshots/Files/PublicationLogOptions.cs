namespace Unikraft.Platform.Kvm.Snapshots.Files;

/// <summary>How a directory keeps what was saved before it has files of its own.</summary>
/// <param name="TimeProvider">The clock.</param>
internal sealed record PublicationLogOptions(TimeProvider TimeProvider)
{
    /// <summary>The size of the log at first. A quarter of it is the most that one snapshot takes.</summary>
    internal long Length { get; init; } = 32 << 20;

    /// <summary>The size of the log in a directory in which more was saved at a stretch than the first one takes; not less than <see cref="Length"/>.</summary>
    internal long MaxLength { get; init; } = 256 << 20;

    /// <summary>How many snapshots are saved without it, before it is worth making.</summary>
    internal int Threshold { get; init; } = 4;

    /// <summary>How long nothing must have been saved for files to be made of what is in the log; at once when three quarters of it are full.</summary>
    internal TimeSpan Delay { get; init; } = TimeSpan.FromMilliseconds(50);
}
