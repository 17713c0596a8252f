using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Kvm.Boot;
using Unikraft.Platform.Kvm.Devices;
using Unikraft.Platform.Kvm.Devices.Virtio;
using Unikraft.Platform.Kvm.Memory;
using Unikraft.Platform.Kvm.Snapshots;

namespace Unikraft.Platform.Kvm.Machines;

/// <summary>The disks of a machine, each behind the registers of its slot. What other virtio devices it has are held with them.</summary>
internal sealed class KvmDisks : IAsyncDisposable
{
    private readonly IMachineControl _control;
    private readonly Lock _lock = new();
    private readonly Lock _line = new();
    private readonly VirtioDevice[] _devices;
    private int _raised;

    /// <summary>The reasons to hold requests back: pauses, a snapshot, and that the machine has not been started.</summary>
    private int _holds = 1;
    private Task _held;

    /// <param name="memory">The guest's memory.</param>
    /// <param name="disks">The disks, which were checked.</param>
    /// <param name="control">Takes their common event.</param>
    /// <param name="monitor">Hears of failures.</param>
    /// <param name="line">Gives the interrupt line of a slot, where each has one of its own. Default: they share the event.</param>
    /// <param name="others">The other virtio devices of the machine, which are owned from now on.</param>
    internal KvmDisks(
        GuestMemory memory,
        IReadOnlyList<MachineDisk> disks,
        IMachineControl control,
        IMachineMonitor monitor,
        Func<int, IInterruptLine>? line = null,
        params ReadOnlySpan<VirtioDevice> others)
    {
        _control = control;
        All =
        [
            .. disks.OrderBy(static disk => disk.Slot).Select(disk => new KvmDisk(
                disk.Slot,
                disk.Device.Size,
                disk.Device.IsReadOnly,
                new VirtioBlock(
                    memory,
                    disk.Device,
                    disk.Id,
                    error => monitor.OnDiskFailed(disk, error),
                    line is null ? SetLine : line(disk.Slot).Set,
                    polls: line is null))),
        ];
        _devices = [.. All.Select(static disk => disk.Block), .. others];
        _held = HoldAllAsync();
    }

    internal IReadOnlyList<KvmDisk> All { get; }

    /// <summary>Checks that the guest of a snapshot finds the disks that it uses.</summary>
    /// <exception cref="ArgumentException">It does not.</exception>
    internal static void Require(IReadOnlyList<DiskState> states, IReadOnlyList<MachineDisk> disks)
    {
        foreach (DiskState state in states)
        {
            if (disks.FirstOrDefault(disk => disk.Slot == state.Slot) is not { } disk
                || disk.Device.Size != state.Size
                || disk.Device.IsReadOnly != state.IsReadOnly)
            {
                throw new ArgumentException(
                    $"The guest of the snapshot has a {(state.IsReadOnly ? "read-only " : "")}disk of {state.Size} bytes in slot {state.Slot}: give it one of that size.",
                    nameof(disks));
            }
        }
    }

    public async ValueTask DisposeAsync()
    {
        foreach (VirtioDevice device in _devices)
        {
            await device.DisposeAsync().ConfigureAwait(false);
        }
    }

    internal void Attach(MmioBus bus, ulong first = FlatGuestLayout.DisksPhysicalAddress)
    {
        foreach (KvmDisk disk in All)
        {
            bus.Attach(first + (ulong)disk.Slot * VirtioDevice.WindowLength, VirtioDevice.WindowLength, disk.Block);
        }
    }

    /// <summary>Does what the guest has asked for, on the vCPU that would otherwise sleep until somebody else has.</summary>
    internal void Serve()
    {
        foreach (KvmDisk disk in All)
        {
            disk.Block.Serve();
        }
    }

    /// <summary>Makes the disks what they were in a snapshot.</summary>
    internal void Restore(IReadOnlyList<DiskState> states)
    {
        foreach (DiskState state in states)
        {
            All.First(disk => disk.Slot == state.Slot).Block.Restore(state.Device);
        }
    }

    /// <summary>Holds back what the guest asks for, and waits for what is under way. Holds nest.</summary>
    /// <param name="cancellationToken">Cancels the waiting, and takes the hold back.</param>
    internal async Task HoldAsync(CancellationToken cancellationToken)
    {
        Task held;
        lock (_lock)
        {
            if (_holds++ == 0)
            {
                _held = HoldAllAsync();
            }

            held = _held;
        }

        try
        {
            await held.WaitAsync(cancellationToken).ConfigureAwait(false);
        }
        catch
        {
            Release();
            throw;
        }
    }

    /// <summary>Takes a hold back.</summary>
    internal void Release()
    {
        lock (_lock)
        {
            if (--_holds > 0)
            {
                return;
            }

            foreach (VirtioDevice device in _devices)
            {
                device.Release();
            }
        }
    }

    // All at once: each may have a flush under way.
    private Task HoldAllAsync() => Task.WhenAll(_devices.Select(static device => device.HoldAsync()));

    /// <summary>The event is pending while the line of any disk is up.</summary>
    private void SetLine(bool isUp)
    {
        lock (_line)
        {
            _raised += isUp ? 1 : -1;
            if (isUp && _raised == 1)
            {
                _control.Raise(GuestEvents.Disk);
            }
            else if (_raised == 0)
            {
                _control.Lower(GuestEvents.Disk);
            }
        }
    }
}
