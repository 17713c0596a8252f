namespace Unikraft.Platform;

/// <summary>The directory in which a platform keeps its resources: docs/data-directory.md.</summary>
/// <remarks>Safe for concurrent use. Every method throws <see cref="ObjectDisposedException"/> after the platform was disposed of.</remarks>
public interface IDataDirectory
{
    /// <summary>The directory.</summary>
    string Path { get; }

    /// <summary>
    /// What was found damaged when the directory was opened, and of snapshots what was found since by whoever loaded them. What depends on it cannot be used, and everything else can. While
    /// something is damaged no file that seems unneeded is removed at a start. Most bytes of snapshots are read when they are first needed: <see cref="VerifyAsync(IProgress{VerificationProgress}, CancellationToken)"/>
    /// reads all.
    /// </summary>
    IReadOnlyList<DataDamage> DamageFound { get; }

    /// <summary>Verifies every byte of every file that has a checksum; and of images that take writes, if nobody has them open, what they say of themselves.</summary>
    /// <remarks>Not verified are ROMs, files outside the directory that volumes are based on, and what guests wrote to volumes that still take writes: docs/data-directory.md.</remarks>
    /// <param name="progress">Told how much of it is done: see <see cref="VerificationProgress"/>; <see langword="null"/> for nobody. Called on other threads.</param>
    /// <param name="cancellationToken">Cancels the verification.</param>
    /// <returns>What is damaged, and what depends on it; empty when nothing is.</returns>
    Task<IReadOnlyList<DataDamage>> VerifyAsync(
        IProgress<VerificationProgress>? progress = null,
        CancellationToken cancellationToken = default);

    /// <summary>Verifies every byte that a checkpoint needs, of its snapshot, volumes and image; not of ROMs and of files outside the directory that volumes are based on.</summary>
    /// <param name="checkpoint">The checkpoint.</param>
    /// <param name="progress">Told how much of it is done: see <see cref="VerificationProgress"/>; <see langword="null"/> for nobody. Called on other threads.</param>
    /// <param name="cancellationToken">Cancels the verification.</param>
    /// <exception cref="ResourceNotFoundException">There is no such checkpoint.</exception>
    /// <exception cref="DataDamageException">Something that it needs is damaged.</exception>
    Task VerifyAsync(NameOrUuid checkpoint, IProgress<VerificationProgress>? progress = null, CancellationToken cancellationToken = default);

    /// <summary>Removes a resource whose metadata are damaged, which cannot be found any more to be deleted.</summary>
    /// <param name="uuid">The UUID that <see cref="DataDamageException.Dependents"/> names.</param>
    /// <returns>Whether there was one.</returns>
    /// <exception cref="StorageException">The host refused.</exception>
    Task<bool> DiscardAsync(Guid uuid);

    /// <summary>
    /// The digests (<c>sha256:...</c>) of what this directory has of the state of a checkpoint: exports made with them leave that out.
    /// </summary>
    /// <param name="checkpoint">The checkpoint.</param>
    /// <param name="cancellationToken">Cancels the reading.</param>
    /// <exception cref="ResourceNotFoundException">There is no such checkpoint.</exception>
    Task<IReadOnlySet<string>> GetDigestsAsync(NameOrUuid checkpoint, CancellationToken cancellationToken = default);

    /// <summary>Writes a checkpoint with its lineage, image and state as an OCI image layout, which ordinary tools can push to a registry.</summary>
    /// <param name="checkpoint">The checkpoint.</param>
    /// <param name="path">A directory, which is made; or a file whose name ends with <c>.tar</c>. It must not exist.</param>
    /// <param name="known">Digests of what the other side has, to be left out: see <see cref="GetDigestsAsync"/>. Default: none.</param>
    /// <param name="cancellationToken">Cancels the export; nothing remains then.</param>
    /// <exception cref="ResourceNotFoundException">There is no such checkpoint.</exception>
    /// <exception cref="DataDamageException">Something that it needs is damaged.</exception>
    /// <exception cref="StorageException">The path exists, the disk is full, or the host refused. Nothing remains.</exception>
    Task ExportAsync(
        NameOrUuid checkpoint,
        string path,
        IReadOnlySet<string>? known = null,
        CancellationToken cancellationToken = default);

    /// <summary>
    /// Takes in a checkpoint that was exported, under the UUID that it has. Everything is verified, and whether this host can run it, before anything is written.
    /// </summary>
    /// <param name="path">The directory or tar file.</param>
    /// <param name="name">The name here. Default: the one that it was exported under.</param>
    /// <param name="cancellationToken">Cancels the import; nothing remains then.</param>
    /// <exception cref="CheckpointArchiveException">The archive is incomplete or damaged, or was made for another machine.</exception>
    /// <exception cref="DataVersionException">The archive is of a newer version.</exception>
    /// <exception cref="NameConflictException">The name is taken, or the checkpoint is here already.</exception>
    /// <exception cref="StorageException">The disk is full, or the host refused. Nothing remains.</exception>
    Task<Checkpoint> ImportAsync(string path, string? name = null, CancellationToken cancellationToken = default);
}
