namespace Unikraft.Platform.Hypervisors;

/// <summary>A directory of snapshots: one state file for each, and the memory layers that they share.</summary>
/// <remarks>
/// Safe for concurrent use. While the directory is open, and while a snapshot opened from it or a machine restored from one lives, nobody else may write to
/// its files: machines map them. Disposing of it waits for the operations under way; the snapshots opened from it stay usable.
/// </remarks>
public interface ISnapshotDirectory : IAsyncDisposable
{
    /// <summary>
    /// What was found damaged when the directory was opened, each as whoever opens what needs it is told: files that are missing, or that cannot be read where they had to be. What only shows when
    /// everything is read is not.
    /// </summary>
    IReadOnlyList<SnapshotFileException> DamageFound { get; }

    /// <summary>The snapshots that are there, damaged ones included, in no particular order.</summary>
    /// <exception cref="ObjectDisposedException">The directory was disposed of.</exception>
    IReadOnlyList<Guid> List();

    /// <summary>
    /// Saves a snapshot. Only the memory layers that are not there yet are written. When it returns, the snapshot survives a crash of the host; when it
    /// fails, nothing of it is left.
    /// </summary>
    /// <param name="id">The name that the snapshot gets in the directory.</param>
    /// <param name="snapshot">A snapshot of the same backend. It stays as it is, and the caller's.</param>
    /// <param name="progress">Told of the bytes of memory that are written; <see langword="null"/> for nobody. Called on other threads.</param>
    /// <param name="cancellationToken">Cancels the saving; nothing remains then.</param>
    /// <returns>The number of bytes that were written to the directory, state included.</returns>
    /// <exception cref="ArgumentException">The snapshot is of another backend.</exception>
    /// <exception cref="NameConflictException">There is a snapshot of that name.</exception>
    /// <exception cref="StorageException">The disk is full, or the host refused.</exception>
    /// <exception cref="ObjectDisposedException">The snapshot or the directory was disposed of.</exception>
    Task<long> SaveAsync(
        Guid id,
        IMachineSnapshot snapshot,
        IProgress<SnapshotProgress>? progress = null,
        CancellationToken cancellationToken = default);

    /// <summary>
    /// Opens a snapshot, for machines to be restored from it. Each file that it needs is verified completely when it is first opened, and trusted from then
    /// on as long as the host says that it did not change.
    /// </summary>
    /// <param name="id">The snapshot.</param>
    /// <param name="progress">Told of the bytes of memory that are verified; <see langword="null"/> for nobody. Called on other threads.</param>
    /// <param name="cancellationToken">Cancels the opening.</param>
    /// <returns>The snapshot, for the caller to dispose of.</returns>
    /// <exception cref="ResourceNotFoundException">There is no such snapshot.</exception>
    /// <exception cref="SnapshotFileException">One of its files is missing, damaged, not the one it should be, or of a newer version.</exception>
    /// <exception cref="StorageException">The host refused.</exception>
    /// <exception cref="ObjectDisposedException">The directory was disposed of.</exception>
    Task<IMachineSnapshot> OpenAsync(
        Guid id,
        IProgress<SnapshotProgress>? progress = null,
        CancellationToken cancellationToken = default);

    /// <summary>Verifies every byte of every file that a snapshot needs, whether it was verified before or not.</summary>
    /// <param name="id">The snapshot.</param>
    /// <param name="progress">Told of the bytes of memory that are verified; <see langword="null"/> for nobody. Called on other threads.</param>
    /// <param name="cancellationToken">Cancels the verification.</param>
    /// <exception cref="ResourceNotFoundException">There is no such snapshot.</exception>
    /// <exception cref="SnapshotFileException">One of its files is missing, damaged, not the one it should be, or of a newer version.</exception>
    /// <exception cref="StorageException">The host refused.</exception>
    /// <exception cref="ObjectDisposedException">The directory was disposed of.</exception>
    Task VerifyAsync(
        Guid id,
        IProgress<SnapshotProgress>? progress = null,
        CancellationToken cancellationToken = default);

    /// <summary>
    /// Deletes a snapshot. A memory layer goes with the last snapshot that refers to it; while an opened snapshot or a machine restored from one still
    /// needs it, it stays until they are gone.
    /// </summary>
    /// <param name="id">The snapshot; a damaged one can be deleted too.</param>
    /// <param name="cancellationToken">Cancels the deletion as long as it has not begun.</param>
    /// <exception cref="ResourceNotFoundException">There is no such snapshot.</exception>
    /// <exception cref="StorageException">The host refused.</exception>
    /// <exception cref="ObjectDisposedException">The directory was disposed of.</exception>
    Task DeleteAsync(Guid id, CancellationToken cancellationToken = default);

    /// <summary>The names of the files in the directory that a snapshot consists of, some of which it may share with others.</summary>
    /// <param name="id">The snapshot.</param>
    /// <exception cref="ResourceNotFoundException">There is no such snapshot.</exception>
    /// <exception cref="ObjectDisposedException">The directory was disposed of.</exception>
    IReadOnlyList<string> GetFiles(Guid id);

    /// <summary>
    /// Takes over the files of a snapshot that lie in another directory of the same file system. A file that is here already is not replaced. The content is not verified:
    /// <see cref="VerifyAsync"/> does that.
    /// </summary>
    /// <param name="id">The snapshot.</param>
    /// <param name="from">The directory, which nobody has open.</param>
    /// <param name="cancellationToken">Cancels it as long as it has not begun.</param>
    /// <exception cref="NameConflictException">There is a snapshot of that name.</exception>
    /// <exception cref="SnapshotFileException">There is no snapshot of that name in the other directory, or nothing can be made of it.</exception>
    /// <exception cref="StorageException">The host refused.</exception>
    /// <exception cref="ObjectDisposedException">The directory was disposed of.</exception>
    Task AdoptAsync(Guid id, string from, CancellationToken cancellationToken = default);
}
