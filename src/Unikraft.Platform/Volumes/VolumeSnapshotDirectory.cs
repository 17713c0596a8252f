using Unikraft.Platform.Hypervisors;

namespace Unikraft.Platform.Volumes;

/// <summary>A directory of snapshots, whose volumes are volume templates that belong to the id of the snapshot.</summary>
internal sealed partial class VolumeSnapshotDirectory(ISnapshotDirectory inner, VolumeCatalog catalog) : ISnapshotDirectory
{
    public IReadOnlyList<Guid> List() => [.. inner.List(), .. catalog.ListWithoutMemory()];

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

        // The volumes first: a state without them could not be used.
        IReadOnlyList<VolumeRecord> before = await catalog.KeepAsync(id, withVolumes, cancellationToken).ConfigureAwait(false);
        try
        {
            return withVolumes.Machine is { } machine ? await inner.SaveAsync(id, machine, progress, cancellationToken).ConfigureAwait(false) : 0;
        }
        catch
        {
            catalog.Unkeep(before);
            throw;
        }
    }

    public async Task<IMachineSnapshot> OpenAsync(
        Guid id,
        IProgress<SnapshotProgress>? progress = null,
        CancellationToken cancellationToken = default)
    {
        IMachineSnapshot? machine = HasMemory(id) ? await inner.OpenAsync(id, progress, cancellationToken).ConfigureAwait(false) : null;
        return catalog.OpenKept(id, machine);
    }

    public Task VerifyAsync(Guid id, IProgress<SnapshotProgress>? progress = null, CancellationToken cancellationToken = default) =>
        HasMemory(id) ? inner.VerifyAsync(id, progress, cancellationToken) : Task.CompletedTask;

    public async Task DeleteAsync(Guid id, CancellationToken cancellationToken = default)
    {
        if (HasMemory(id))
        {
            await inner.DeleteAsync(id, cancellationToken).ConfigureAwait(false);
        }

        catalog.BeginDelete(catalog.OwnedBy(id));
    }

    public IReadOnlyList<string> GetFiles(Guid id) => HasMemory(id) ? inner.GetFiles(id) : [];

    public Task AdoptAsync(Guid id, string from, CancellationToken cancellationToken = default) => inner.AdoptAsync(id, from, cancellationToken);

    public ValueTask DisposeAsync() => inner.DisposeAsync();

    private bool HasMemory(Guid id) => !catalog.ListWithoutMemory().Contains(id);
}
