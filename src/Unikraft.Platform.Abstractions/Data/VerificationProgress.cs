using System.Runtime.InteropServices;

namespace Unikraft.Platform;

/// <summary>How far a verification has come.</summary>
/// <param name="Completed">The metadata, snapshots, images, logs and volumes that are done. Volumes that are part of a snapshot are done with it.</param>
/// <param name="Total">How many there are, known from the beginning.</param>
[StructLayout(LayoutKind.Auto)]
public readonly record struct VerificationProgress(int Completed, int Total)
{
    /// <summary>The bytes that have been read of what is being verified, which may have several parts, each with a size of its own; 0 between two things.</summary>
    public long CurrentBytes { get; init; }

    /// <summary>The size in bytes of what is being verified, or of the part of it that is; 0 between two things.</summary>
    public long CurrentTotalBytes { get; init; }
}
