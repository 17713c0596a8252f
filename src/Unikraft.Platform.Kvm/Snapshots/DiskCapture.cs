using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Kvm.Devices.Virtio;
using Unikraft.Platform.Kvm.Machines;

namespace Unikraft.Platform.Kvm.Snapshots;

/// <summary>The part of a snapshot that is about disks. What guests ask for is held back while they run on, so that nothing is waited for in the pause.</summary>
/// <param name="disks">The disks of the machine.</param>
/// <param name="cut">What the owner of the disks does.</param>
internal sealed class DiskCapture(KvmDisks disks, IDiskCut? cut)
{
    private readonly VirtioDeviceCut[] _room = [.. disks.All.Select(static disk => disk.Block.NewCut())];

    /// <summary>Holds requests back, and waits for those under way.</summary>
    internal async ValueTask HoldAsync(CancellationToken cancellationToken)
    {
        await disks.HoldAsync(cancellationToken).ConfigureAwait(false);
        if (cut is not null)
        {
            try
            {
                await cut.HoldAsync(cancellationToken).ConfigureAwait(false);
            }
            catch
            {
                disks.Release();
                throw;
            }
        }
    }

    /// <summary>Takes the states, with all vCPUs standing still.</summary>
    internal void Cut()
    {
        for (int i = 0; i < _room.Length; i++)
        {
            disks.All[i].Block.Save(_room[i]);
        }

        cut?.Cut();
    }

    /// <summary>Lets requests go on.</summary>
    internal void Release()
    {
        cut?.Release();
        disks.Release();
    }

    /// <summary>The states that were taken.</summary>
    internal DiskState[] ToStates() =>
    [
        .. disks.All.Zip(_room, static (disk, room) => new DiskState(disk.Slot, disk.Size, disk.IsReadOnly, room.ToState())),
    ];
}
