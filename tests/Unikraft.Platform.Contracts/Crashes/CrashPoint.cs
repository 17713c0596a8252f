namespace Unikraft.Platform.Contracts.Crashes;

/// <summary>
/// Where a child process is killed: before a call by which a script touches the disk, or in the middle of one that writes. The script is told by its seed; the call by its kind
/// (<c>Write</c>) or its kind and the method of the library that makes it (<c>Sync@MetadataStore.Append</c>), and by how many there were before it; behind a <c>!</c> the call fails,
/// and the kill comes at the next one that syncs, renames or removes, or at the one that is named behind a <c>&gt;</c>. Behind a <c>!!</c> it fails because the disk is full.
/// </summary>
/// <param name="Seed">The seed of the script.</param>
/// <param name="Call">The kind of the call, or its place.</param>
/// <param name="Number">Which of these calls, counted from 1; 0 for none.</param>
public sealed record CrashPoint(int Seed, string Call, int Number)
{
    /// <summary>A script that is not stopped.</summary>
    /// <param name="seed">The seed of the script.</param>
    public static CrashPoint None(int seed) => new(seed, "none", 0);
}
