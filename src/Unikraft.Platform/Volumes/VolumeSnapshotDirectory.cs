using Unikraft.Platform.Hypervisors;

namespace Unikraft.Platform.Volumes;

/// <summary>A directory of snapshots, whose volumes are volume templates that belong to the id of the snapshot.</summary>
internal sealed partial class VolumeSnapshotDirectory(ISnapshotDirectory inner, VolumeCatalog catalog) : ISnapshotDirectory
{
    public IReadOnlyList<SnapshotFileException> DamageFound => inner.DamageFound;

    public IReadOnlyList<Guid> List() => [.. inner.List(), .. catalog.ListWithoutMemory()];

    /// <summary>The volume templates that belong to a snapshot.</summary>
    public IReadOnlyList<AttachedVolume> DescribeVolumes(Guid id) => catalog.DescribeKept(id);

    /// <summary>The ROMs of a snapshot.</summary>
    public IReadOnlyList<InstanceRom> DescribeRoms(Guid id) => RomMount.Describe(catalog.RomsKeptWith(id));

    public Task<long> SaveAsync(
        Guid id,
        IMachineSnapshot snapshot,
        IProgress<SnapshotProgress>? progress = null,
        CancellationToken cancellationToken = default) => SaveCoreAsync(id, snapshot, progress, static save => save(), cancellationToken);

    /// <summary>Saves a snapshot. What the backend does may be tried again, which has to find room on the disk.</summary>
    public Task<long> SaveAsync(Guid id, IMachineSnapshot snapshot, Func<Func<Task<long>>, Task<long>> trying, CancellationToken cancellationToken) =>
        SaveCoreAsync(id, snapshot, progress: null, trying, cancellationToken);

    private async Task<long> SaveCoreAsync(
        Guid id,
        IMachineSnapshot snapshot,
        IProgress<SnapshotProgress>? progress,
        Func<Func<Task<long>>, Task<long>> trying,
        CancellationToken cancellationToken)
    {
        if (snapshot is not VolumeSnapshot withVolumes)
        {
            return await trying(() => inner.SaveAsync(id, snapshot, progress, cancellationToken)).ConfigureAwait(false);
        }

        // The volumes first: a state without them could not be used.
        VolumeChange undo = await catalog.KeepAsync(id, withVolumes, cancellationToken).ConfigureAwait(false);
        try
        {
            return withVolumes.Machine is { } machine ? await trying(() => inner.SaveAsync(id, machine, progress, cancellationToken)).ConfigureAwait(false) : 0;
        }
        catch
        {
            catalog.Unkeep(undo);
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

    private bool HasMemory(Guid id) => !catalog.HasNoMemory(id);
}
