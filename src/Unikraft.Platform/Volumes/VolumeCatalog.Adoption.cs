using Unikraft.Platform.Checkpoints;
using Unikraft.Platform.Diagnostics;
using Unikraft.Platform.Hypervisors;

namespace Unikraft.Platform.Volumes;

/// <content>What snapshots that are kept, and templates, take over: volumes belong to them then, and no more to instances.</content>
internal sealed partial class VolumeCatalog
{
    /// <summary>
    /// Writes down which volumes a template takes over from its instance when it is one: between what is written down of the two, the host may end.
    /// </summary>
    /// <param name="snapshot">The snapshot that the template continues from.</param>
    /// <param name="instance">The instance.</param>
    /// <exception cref="StorageException">The host cannot write. Nothing has changed.</exception>
    public void PlanAdoption(SnapshotReference snapshot, Guid instance)
    {
        SnapshotVolume[] adopted = AdoptedBy(VolumesOf(snapshot), instance);
        if (adopted.Length > 0)
        {
            Commit(() => new VolumeChange { Set = [.. adopted.Select(part => part.Template.Record with { Adopts = part.Source!.Identity.Uuid, Adopter = instance })] });
        }
    }

    /// <summary>The volumes of an instance that has become a template are its volume templates from now on, in place of those of its snapshot.</summary>
    /// <param name="snapshot">The snapshot.</param>
    /// <param name="instance">The instance.</param>
    /// <param name="isWritten">Whether it is on the disk that there is a template; if not, the volumes are those of the instance there.</param>
    public void Adopt(SnapshotReference snapshot, Guid instance, bool isWritten)
    {
        // One that others read as well stays what it is.
        IReadOnlyList<SnapshotVolume> volumes = VolumesOf(snapshot);
        SnapshotVolume[] adopted = AdoptedBy(volumes, instance);
        if (!TryAdopt(
            [.. adopted.Select(static part => (part.Template, part.Source!))],
            [.. volumes.Except(adopted).Select(static part => part.Template).Where(static template => template.Record.Adopter is not null)],
            isWritten))
        {
            return;
        }

        (snapshot.Opened as VolumeSnapshot)?.Replace([.. volumes.Select(part => adopted.Contains(part) ? part with { Template = part.Source! } : part)]);
        BeginDelete([.. adopted.Select(static part => part.Template)]);
    }

    /// <summary>Has templates take over what the volumes of their instances were, where the host ended before that was done.</summary>
    /// <param name="snapshots">The snapshots that templates continue from.</param>
    public void CompleteAdoptions(IReadOnlyDictionary<Guid, Guid> snapshots)
    {
        if (Volatile.Read(ref _files) is null)
        {
            return;
        }

        List<(StoredVolume Template, StoredVolume Volume)> adopted = [];
        lock (_lock)
        {
            foreach (StoredVolume template in _volumes.All)
            {
                if (template is { Failure: null, Record: { IsKept: true, Adopts: { } adopts, Adopter: { } adopter } }
                    && snapshots.TryGetValue(adopter, out Guid snapshot)
                    && snapshot == template.Record.Owner
                    && _volumes.TryFind(adopts, out StoredVolume? volume)
                    && volume is { Mounts.Count: 0, Record.IsTemplate: false })
                {
                    adopted.Add((template, volume));
                }
            }
        }

        if (TryAdopt([.. adopted], others: [], mayWrite: true))
        {
            BeginDelete([.. adopted.Select(static pair => pair.Template)]);
        }
    }

    // A snapshot from before the last start of the host need not be opened for that.
    private IReadOnlyList<SnapshotVolume> VolumesOf(SnapshotReference snapshot) => snapshot switch
    {
        { Opened: VolumeSnapshot opened } => opened.Volumes,
        { Opened: null, KeptAs: { } id } => ListKept(id),
        _ => [],
    };

    private SnapshotVolume[] AdoptedBy(IReadOnlyList<SnapshotVolume> volumes, Guid instance) =>
    [
        // What is damaged takes nobody's place, nor has it taken by a sound one that would count as damaged then.
        .. volumes.Where(part => part is { Template.Failure: null, Source: { Failure: null } source } && IsOnlyIn(source, instance)),
    ];

    private bool IsOnlyIn(StoredVolume volume, Guid instance)
    {
        lock (_lock)
        {
            // Not one that the instance does not have, or not yet: its snapshot may be of another instance, whose volume is nobody's business.
            return volume.Mounts.Count > 0
                && volume.Mounts.TrueForAll(mount => mount.Owner.Identity.Uuid == instance && mount.Pending != VolumeUpdate.Attach);
        }
    }

    /// <param name="adopted">Templates, and the volumes that take their places.</param>
    /// <param name="others">Templates that stay what they are, although something else was planned.</param>
    /// <param name="mayWrite">Whether it may be written down yet.</param>
    private bool TryAdopt((StoredVolume Template, StoredVolume Volume)[] adopted, StoredVolume[] others, bool mayWrite)
    {
        if (adopted.Length + others.Length == 0)
        {
            return false;
        }

        Exception? failure = null;
        if (mayWrite)
        {
            try
            {
                Commit(() => new VolumeChange
                {
                    Set =
                    [
                        .. adopted.Select(static pair => pair.Volume.Record with
                        {
                            Top = pair.Template.Record.Top,
                            IsTemplate = true,
                            Owner = pair.Template.Record.Owner,
                            IsKept = pair.Template.Record.IsKept,
                            HasNoMemory = pair.Template.Record.HasNoMemory,
                            Images = pair.Template.Record.Images,
                            Slot = pair.Template.Record.Slot,
                            At = pair.Template.Record.At,
                            ReadOnly = pair.Template.Record.ReadOnly,
                        }),

                        // By the same line: of two in one place nobody would know which it is.
                        .. adopted.Select(static pair => pair.Template.Record with { IsKept = false, Adopts = null, Adopter = null }),
                        .. others.Select(static template => template.Record with { Adopts = null, Adopter = null }),
                    ],
                });
            }
            catch (StorageException error)
            {
                failure = error;
                _platform.Logger.VolumeWorkFailed(error);
            }
        }

        lock (_lock)
        {
            foreach ((_, StoredVolume volume) in adopted)
            {
                // The next start makes it a template: nobody may have written to it until then.
                volume.Failure = mayWrite && failure is null
                    ? null
                    : new StorageException(
                        Images.PathOf(volume.Record.Top!),
                        $"The {volume.Title} belongs to a template, which could not be written down. {failure?.Message} It is a part of the template when the platform has been started again.");
            }
        }

        return mayWrite && failure is null;
    }

    /// <summary>The volumes and ROMs of a snapshot belong to an id from now on, under which the snapshot is kept.</summary>
    /// <returns>What takes that back, for <see cref="Unkeep"/>.</returns>
    public async Task<VolumeChange> KeepAsync(Guid id, VolumeSnapshot snapshot, CancellationToken cancellationToken)
    {
        cancellationToken.ThrowIfCancellationRequested();
        VolumeRecord[] before = [.. snapshot.Volumes.Select(static part => part.Template.Record)];
        if (Array.Exists(before, static record => record.IsKept))
        {
            throw new InvalidOperationException("The volumes of the snapshot are kept already.");
        }

        VolumeRecord[] roms = [.. snapshot.Roms.Select(rom => RecordOf(rom, id, hasNoMemory: snapshot.Machine is null))];
        await Task.Run(
            () =>
            {
                Dictionary<Guid, IReadOnlyList<ImageChecksum>> images = before.ToDictionary(static record => record.Uuid, record => DescribeImages(record, cancellationToken));
                Commit(() => new VolumeChange
                {
                    Set =
                    [
                        .. snapshot.Volumes.Select(part => part.Template.Record with
                        {
                            Owner = id,
                            IsKept = true,
                            Adopts = part.Source?.Identity.Uuid,
                            HasNoMemory = snapshot.Machine is null,
                            Images = images[part.Template.Identity.Uuid],
                            Slot = part.Slot,
                            At = part.At,
                            ReadOnly = part.IsReadOnly,
                        }),
                        .. roms,

                        // What the volumes themselves are based on from now on is known by this, too.
                        .. snapshot.Volumes.Where(IsBeneathItsSource).Select(part => part.Source!.Record with { Images = images[part.Template.Identity.Uuid] }),
                    ],
                });
                Array.ForEach(roms, Add);
            },
            cancellationToken).ConfigureAwait(false);
        return new VolumeChange { Set = before, Removed = [.. roms.Select(static rom => rom.Uuid)] };
    }

    private bool IsBeneathItsSource(SnapshotVolume part)
    {
        lock (_lock)
        {
            return part.Source is { Record: { IsTemplate: false, Top: { } top } record }
                && _volumes.Has(record.Uuid)
                && Images.ChainOf(top).Skip(1).Contains(part.Template.Record.Top, StringComparer.Ordinal);
        }
    }

    /// <summary>A snapshot could not be kept: its volumes go with it again.</summary>
    public void Unkeep(VolumeChange undo)
    {
        try
        {
            Commit(undo);
            Forget(undo.Removed);
        }
        catch (StorageException error)
        {
            // The next start finds that nobody owns them.
            _platform.Logger.VolumeWorkFailed(error);
        }
    }

    /// <summary>Whether a snapshot is kept and is of volumes only.</summary>
    public bool HasNoMemory(Guid id)
    {
        lock (_lock)
        {
            return _volumes.OwnedBy(id).Any(static volume => volume.Record is { IsKept: true, HasNoMemory: true });
        }
    }

    /// <summary>The snapshots that are kept and are of volumes only.</summary>
    public IReadOnlyList<Guid> ListWithoutMemory()
    {
        lock (_lock)
        {
            return [.. _volumes.All.Where(static volume => volume.Record is { IsKept: true, HasNoMemory: true }).Select(static volume => volume.Record.Owner!.Value).Distinct()];
        }
    }

    /// <summary>Puts a snapshot that was opened together with the volumes that are kept under its id.</summary>
    /// <param name="id">The id.</param>
    /// <param name="machine">What was opened; <see langword="null"/> when there are only volumes.</param>
    public IMachineSnapshot OpenKept(Guid id, IMachineSnapshot? machine)
    {
        IReadOnlyList<RomMount> roms = RomsKeptWith(id);
        return machine is not null && ListKept(id).Count + roms.Count == 0 ? machine : new VolumeSnapshot(this, machine, id, roms);
    }

    /// <summary>The volumes that are kept under the id of a snapshot, and which they are cuts of if those are there.</summary>
    public IReadOnlyList<SnapshotVolume> ListKept(Guid id)
    {
        lock (_lock)
        {
            return
            [
                .. OwnedBy(id).Where(static volume => volume.Record is { IsKept: true, Rom: null }).OrderBy(static volume => volume.Record.Slot)
                    .Select(volume => new SnapshotVolume(
                        volume,
                        volume.Record.Slot,
                        volume.Record.At,
                        volume.Record.ReadOnly,
                        volume.Record.Adopts is { } source ? _volumes.Find(source) : null)),
            ];
        }
    }
}
