using Unikraft.Platform.Diagnostics;
using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Instances;
using Unikraft.Platform.Resources;

namespace Unikraft.Platform.Volumes;

/// <content>The volumes of an instance at one moment: for a snapshot, a template or a clone.</content>
internal sealed partial class VolumeCatalog
{
    /// <summary>Takes a snapshot of a machine, and of its volumes at the same moment.</summary>
    public async Task<IMachineSnapshot> CaptureAsync(
        OpenVolumes open,
        Func<IDiskCut, ValueTask<IMachineSnapshot>> capture,
        CancellationToken cancellationToken)
    {
        using Turns turns = await Turns.TakeAsync(open.Mounts.Select(static mount => mount.Volume), cancellationToken).ConfigureAwait(false);
        VolumeMount[] written = [.. open.Mounts.Where(static mount => !mount.IsReadOnly)];
        string[] names = [.. written.Select(static _ => ImageDirectory.NewName())];
        List<PreparedOverlay> overlays = [];
        IMachineSnapshot? machine = null;
        try
        {
            foreach (VolumeMount mount in written)
            {
                await mount.Disk!.WhenPublishedAsync().ConfigureAwait(false);
                await TrySettleFoldAsync(mount.Volume, cancellationToken).ConfigureAwait(false);
            }

            for (int i = 0; i < written.Length; i++)
            {
                overlays.Add(await written[i].Disk!.PrepareOverlayAsync(Images.PathOf(names[i]), cancellationToken).ConfigureAwait(false));
            }

            DiskCutOfVolumes cut = new([.. written.Select(static mount => mount.Disk!)], [.. overlays]);
            try
            {
                machine = await capture(cut).ConfigureAwait(false);
            }
            finally
            {
                // Also when the snapshot has failed behind the cut: the volumes have new tops all the same.
                PublishCuts(written, names, cut);
            }

            List<SnapshotVolume> parts = await MakeTemplatesAsync(open.Mounts, written, cut, cancellationToken).ConfigureAwait(false);
            return new VolumeSnapshot(this, machine, parts, open.Roms);
        }
        catch
        {
            machine?.Dispose();
            throw;
        }
        finally
        {
            foreach (PreparedOverlay overlay in overlays)
            {
                await overlay.DisposeAsync().ConfigureAwait(false);
            }
        }
    }

    /// <summary>Takes the volumes of an instance that does not run, if it has any.</summary>
    /// <param name="instance">The instance.</param>
    /// <param name="purpose">What for.</param>
    /// <param name="memory">A hold on the memory that goes with them, if there is one, which is taken over; and what it holds.</param>
    /// <param name="cancellationToken">Cancels the waiting for other operations.</param>
    /// <returns><see langword="null"/> when there is nothing but the image.</returns>
    public async Task<IMachineSnapshot?> CaptureStoppedAsync(
        ResourceIdentity instance,
        ClonePurpose purpose,
        (IDisposable Hold, IMachineSnapshot Snapshot)? memory,
        CancellationToken cancellationToken)
    {
        if (Find(instance.Uuid) is not { } volumes)
        {
            return null;
        }

        // What waited for the stop is done by then.
        await SettleAsync(instance.Uuid, cancellationToken).ConfigureAwait(false);
        VolumeMount[] mounts;
        IReadOnlyList<RomMount> roms;
        lock (_lock)
        {
            mounts = [.. volumes.Mounts.Where(static mount => mount.Pending != VolumeUpdate.Attach)];
            roms = volumes.Roms;
        }

        if (mounts.Length + roms.Count == 0)
        {
            return null;
        }

        RequireBlocks(mounts, purpose);
        List<SnapshotVolume> parts = [];
        try
        {
            foreach (VolumeMount mount in mounts)
            {
                using Turns turn = await Turns.TakeAsync([mount.Volume], cancellationToken).ConfigureAwait(false);
                StoredVolume template = await FreezeAsync(mount.Volume, cancellationToken).ConfigureAwait(false);
                parts.Add(new SnapshotVolume(template, mount.Slot, mount.At, mount.IsReadOnly, mount.Volume));
            }
        }
        catch
        {
            BeginDelete([.. parts.Select(static part => part.Template)]);
            throw;
        }

        return new VolumeSnapshot(
            this,
            memory?.Snapshot is VolumeSnapshot withVolumes ? withVolumes.Machine : memory?.Snapshot,
            parts,
            roms,
            memory?.Hold);
    }

    /// <summary>Refuses what needs block volumes, for an instance that has another one.</summary>
    /// <exception cref="PlatformException">It has.</exception>
    public void RequireBlocks(Guid instance, ClonePurpose purpose)
    {
        VolumeMount[] mounts;
        lock (_lock)
        {
            mounts = _instances.TryGetValue(instance, out InstanceVolumes? volumes) ? [.. volumes.Mounts] : [];
        }

        RequireBlocks(mounts, purpose);
    }

    /// <summary>
    /// Makes a clone of a volume as it is now. The caller has its turn, unless it is a template. One that is in use is cut while its guest goes on.
    /// </summary>
    /// <param name="source">The volume.</param>
    /// <param name="identity">What the clone is known by.</param>
    /// <param name="owner">What owns the clone; <see langword="null"/> when nothing does.</param>
    /// <param name="metadata">Its tags and its delete lock.</param>
    /// <param name="cancellationToken">Cancels it; there is no clone then, and the volume holds what it did.</param>
    public async Task<StoredVolume> CloneAsync(
        StoredVolume source,
        ResourceIdentity identity,
        Guid? owner,
        ResourceMetadata metadata,
        CancellationToken cancellationToken)
    {
        RequireUsable(source);
        if (source.Writer is null)
        {
            SettleSize(source);
        }

        VolumeRecord record = source.Record;
        string backing = record.IsTemplate ? record.Top! : await CutAsync(source, cancellationToken).ConfigureAwait(false);
        string top = await MakeImageAsync(backing, FormatOf(backing), record.Size, cancellationToken).ConfigureAwait(false);
        return Add(
            identity,
            new VolumeRecord
            {
                Uuid = identity.Uuid,
                Name = string.Equals(identity.Name, identity.Uuid.ToString("D"), StringComparison.Ordinal) ? null : identity.Name,
                CreatedAt = identity.CreatedAt,
                Top = top,
                Size = record.Size,
                Filesystem = record.Filesystem,
                Owner = owner,
                Bases = record.Bases,
                Images = record.Images,
                Tags = metadata.Tags,
                DeleteLock = metadata.DeleteLock,
            },
            metadata);
    }

    private static void RequireBlocks(IEnumerable<VolumeMount> mounts, ClonePurpose purpose)
    {
        if (mounts.Any(static mount => !mount.Volume.IsBlock))
        {
            throw new PlatformException(
                PlatformErrorCode.UnsupportedVolume,
                purpose == ClonePurpose.Checkpoint ? VolumeRules.CheckpointNeedsBlocks : VolumeRules.BranchNeedsBlocks);
        }
    }

    // The tops that cuts have put on volumes are written down, after which flushes of the guest complete again.
    private void PublishCuts(VolumeMount[] mounts, string[] names, DiskCutOfVolumes cut)
    {
        int[] made = [.. Enumerable.Range(0, mounts.Length).Where(index => cut.Cuts[index] is not null)];
        if (made.Length == 0)
        {
            return;
        }

        foreach (int index in made)
        {
            Images.Add(names[index], mounts[index].Volume.Record.Top);
        }

        Lock writing = new();
        bool isWritten = false;
        try
        {
            Write();
        }
        catch (StorageException)
        {
            foreach (int index in made)
            {
                cut.Cuts[index]!.Defer(WriteAgain);
            }

            throw;
        }
        finally
        {
            foreach (int index in made)
            {
                BeginComplete(cut.Cuts[index]!);
            }
        }

        BeginFold();

        void Write()
        {
            lock (writing)
            {
                // By the flush of another one of these volumes.
                if (isWritten)
                {
                    return;
                }

                Commit(() => new VolumeChange { Set = [.. made.Select(index => mounts[index].Volume.Record with { Top = names[index] })] });
                isWritten = true;
                foreach (int index in made)
                {
                    cut.Cuts[index]!.Publish();
                }
            }
        }

        void WriteAgain()
        {
            try
            {
                Write();
            }
            catch (StorageException error)
            {
                StoredVolume volume = mounts[made[0]].Volume;
                throw new BlockDeviceException(
                    error.IsFull ? BlockDeviceError.NoSpace : BlockDeviceError.InputOutput,
                    Images.PathOf(names[made[0]]),
                    $"What the {volume.Title} is made of cannot be written down, and nothing of it is flushed until it is: {error.Message}",
                    error);
            }
        }
    }

    // Nobody waits for a frozen image to be complete as a file.
    private void BeginComplete(VolumeCut cut) => Begin(async () =>
    {
        try
        {
            await cut.SealAsync().ConfigureAwait(false);
        }
        finally
        {
            await cut.DisposeAsync().ConfigureAwait(false);
        }
    });

    private async Task<List<SnapshotVolume>> MakeTemplatesAsync(IReadOnlyList<VolumeMount> mounts, VolumeMount[] written, DiskCutOfVolumes cut, CancellationToken cancellationToken)
    {
        Guid owner = Guid.CreateVersion7(_platform.TimeProvider.GetUtcNow());
        List<SnapshotVolume> parts = [];
        try
        {
            foreach (VolumeMount mount in mounts)
            {
                int index = Array.IndexOf(written, mount);
                StoredVolume template = index < 0
                    ? await FreezeAsync(mount.Volume, cancellationToken).ConfigureAwait(false)
                    : AddTemplate(mount.Volume.Record, Path.GetFileName(cut.Cuts[index]!.Path), owner, mount.Slot, mount.At, mount.IsReadOnly);
                parts.Add(new SnapshotVolume(template, mount.Slot, mount.At, mount.IsReadOnly, mount.Volume));
            }

            return parts;
        }
        catch
        {
            BeginDelete([.. parts.Select(static part => part.Template)]);
            throw;
        }
    }

    /// <summary>Makes a volume template of a volume that nobody writes to. The caller has its turn.</summary>
    private async Task<StoredVolume> FreezeAsync(StoredVolume volume, CancellationToken cancellationToken)
    {
        string frozen = await CutAsync(volume, cancellationToken).ConfigureAwait(false);
        return AddTemplate(volume.Record, frozen, Guid.CreateVersion7(_platform.TimeProvider.GetUtcNow()), slot: 0, at: "", isReadOnly: false);
    }

    private StoredVolume AddTemplate(VolumeRecord source, string top, Guid owner, int slot, string at, bool isReadOnly)
    {
        ResourceIdentity identity = ReserveUnnamed();

        // One that cannot be written down lets go of its image, which others have on theirs.
        Images.Hold(top);
        StoredVolume template = Add(
            identity,
            source with
            {
                Uuid = identity.Uuid,
                Name = null,
                CreatedAt = identity.CreatedAt,
                Top = top,
                IsTemplate = true,
                Owner = owner,
                Slot = slot,
                At = at,
                ReadOnly = isReadOnly,
                Tags = [],
                DeleteLock = false,
            },
            ResourceMetadata.None);
        ReleaseImage(top);
        return template;
    }

    /// <summary>Puts a new image on a volume, so that the one below does not change any more. The caller has its turn.</summary>
    /// <returns>The name of the one below.</returns>
    private async Task<string> CutAsync(StoredVolume volume, CancellationToken cancellationToken)
    {
        await TrySettleFoldAsync(volume, cancellationToken).ConfigureAwait(false);
        VolumeRecord record = volume.Record;
        if (volume.Writer is not { } disk)
        {
            // It does not change any more, and so it is not completed by its next opening.
            await Task.Run(() => Images.Repair(record.Top!, record.Bases), cancellationToken).ConfigureAwait(false);
            string overlay = await MakeImageAsync(record.Top, FormatOf(record.Top!), record.Size, cancellationToken).ConfigureAwait(false);
            try
            {
                Commit(new VolumeChange { Set = [record with { Top = overlay }] });
            }
            catch
            {
                ReleaseImage(overlay);
                throw;
            }

            return record.Top!;
        }

        await disk.WhenPublishedAsync().ConfigureAwait(false);
        record = volume.Record;
        string name = ImageDirectory.NewName();
        PreparedOverlay prepared = await disk.PrepareOverlayAsync(Images.PathOf(name), cancellationToken).ConfigureAwait(false);
        await using (prepared.ConfigureAwait(false))
        {
            DiskCutOfVolumes cut = new([disk], [prepared]);
            await cut.HoldAsync(cancellationToken).ConfigureAwait(false);
            try
            {
                cut.Cut();
            }
            finally
            {
                cut.Release();
            }

            VolumeMount mount;
            lock (_lock)
            {
                mount = volume.Mounts.First(other => other.Disk == disk);
            }

            PublishCuts([mount], [name], cut);
        }

        return record.Top!;
    }

    /// <summary>The turns of several volumes, taken in one order by everybody.</summary>
    private sealed class Turns : IDisposable
    {
        private readonly List<StoredVolume> _taken = [];

        public static async Task<Turns> TakeAsync(IEnumerable<StoredVolume> volumes, CancellationToken cancellationToken)
        {
            Turns turns = new();
            try
            {
                foreach (StoredVolume volume in volumes.Distinct().OrderBy(static volume => volume.Identity.Uuid))
                {
                    await volume.Turn.WaitAsync(cancellationToken).ConfigureAwait(false);
                    turns._taken.Add(volume);
                }

                return turns;
            }
            catch
            {
                turns.Dispose();
                throw;
            }
        }

        public void Dispose() => _taken.ForEach(static volume => volume.Turn.Release());
    }
}
