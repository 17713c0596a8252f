using Unikraft.Platform.Hypervisors;

namespace Unikraft.Platform.Volumes;

/// <summary>A directory of snapshots, whose volumes are volume templates that belong to the id of the snapshot.</summary>
internal sealed partial class VolumeSnapshotDirectory(ISnapshotDirectory inner, VolumeCatalog catalog) : ISnapshotDirectory
{
    public IReadOnlyList<Guid> List() => inner.List();

    /// <summary>The volume templates that belong to a snapshot.</summary>
    public IReadOnlyList<AttachedVolume> DescribeVolumes(Guid id) => catalog.DescribeKept(id);

    public async Task<long> SaveAsync(
        Guid id,
        IMachineSnapshot snapshot,
        IProgress<SnapshotProgress>? progress = null,
        CancellationToken cancellationToken = default)
    {
        if (snapshot is not VolumeSnapshot withVolumes)
        {
            return await inner.SaveAsync(id, snapshot, progress, cancellationToken).ConfigureAwait(false);
        }

        if (withVolumes.Machine is not { } machine)
        {
            throw new ArgumentException("The snapshot holds volumes only: there is nothing to save.", nameof(snapshot));
        }

        // The volumes first: a state without them could not be used.
        IReadOnlyList<StoredVolume> kept = await catalog.KeepAsync(id, withVolumes, cancellationToken).ConfigureAwait(false);
        try
        {
            return await inner.SaveAsync(id, machine, progress, cancellationToken).ConfigureAwait(false);
        }
        catch
        {
            catalog.BeginDelete(kept);
            throw;
        }
    }

    public async Task<IMachineSnapshot> OpenAsync(
        Guid id,
        IProgress<SnapshotProgress>? progress = null,
        CancellationToken cancellationToken = default)
    {
        IMachineSnapshot machine = await inner.OpenAsync(id, progress, cancellationToken).ConfigureAwait(false);
        try
        {
            return await catalog.OpenKeptAsync(id, machine, cancellationToken).ConfigureAwait(false);
        }
        catch
        {
            machine.Dispose();
            throw;
        }
    }

    public Task VerifyAsync(Guid id, IProgress<SnapshotProgress>? progress = null, CancellationToken cancellationToken = default) =>
        inner.VerifyAsync(id, progress, cancellationToken);

    public async Task DeleteAsync(Guid id, CancellationToken cancellationToken = default)
    {
        await inner.DeleteAsync(id, cancellationToken).ConfigureAwait(false);
        catalog.BeginDelete(catalog.OwnedBy(id));
    }

    public IReadOnlyList<string> GetFiles(Guid id) => inner.GetFiles(id);

    public Task AdoptAsync(Guid id, string from, CancellationToken cancellationToken = default) => inner.AdoptAsync(id, from, cancellationToken);

    public ValueTask DisposeAsync() => inner.DisposeAsync();
}
