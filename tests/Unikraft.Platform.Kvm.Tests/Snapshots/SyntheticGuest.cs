using Unikraft.Platform.Kvm.Boot;
using Unikraft.Platform.Kvm.Devices;
using Unikraft.Platform.Kvm.Devices.Virtio;
using Unikraft.Platform.Kvm.Memory;
using Unikraft.Platform.Kvm.Snapshots;
using Unikraft.Platform.Kvm.Tests.Testing;
using Unikraft.Platform.Kvm.Vcpus;

namespace Unikraft.Platform.Kvm.Tests.Snapshots;

/// <summary>Memory that changes at random and is snapshotted again and again, without a machine.</summary>
internal sealed class SyntheticGuest : IDisposable
{
    internal const int Pages = 900;

    /// <summary>Where the stacks of the layout begin, behind an image of three and one pages.</summary>
    internal const long StacksStart = 0x10_5000;

    private readonly GuestMemory _memory = new((long)Pages << PageSize.Shift);
    private static readonly DiskState[] Disks =
    [
        new(
            Slot: 1,
            Size: 1 << 20,
            IsReadOnly: false,
            new VirtioDeviceState
            {
                Status = 15,
                DriverFeatures = (1UL << 32) | (1 << 9),
                InterruptStatus = 1,
                Queues = [new(new VirtqueueSettings { Size = 256, Descriptors = 0x3000, Available = 0x4000, Used = 0x5000 }, IsReady: true, 700, 698)],
            }),
        new(
            Slot: 11,
            Size: 512,
            IsReadOnly: true,
            new VirtioDeviceState { QueueSelector = 5, Queues = [new(new VirtqueueSettings { Used = 3 }, IsReady: false, 0, 0)] }),
    ];

    private readonly Random _random;
    private PageMap? _map;

    internal SyntheticGuest(int seed) => _random = new Random(seed);

    internal static FlatGuestLayout Layout { get; } = new(
        [new GuestRange(0x10_0000, 0x10_3000, IsWritable: false), new GuestRange(0x10_3000, 0x10_4000, IsWritable: true)],
        StacksStart,
        (long)Pages << PageSize.Shift,
        vcpus: 2);

    internal ReadOnlySpan<byte> Memory => _memory.Read(0, Pages << PageSize.Shift);

    /// <summary>Writes to some runs of pages, zeroes others, and takes a snapshot.</summary>
    internal KvmSnapshot Capture(int runs = 12, int longestRun = 30)
    {
        PageBitmap changed = new(Pages);
        byte[] content = new byte[PageSize.Bytes];
        for (; runs > 0; runs--)
        {
            bool isZero = runs % 4 == 3;
            int start = _random.Next(Pages);
            int end = Math.Min(Pages, start + _random.Next(1, longestRun + 1));
            for (int page = start; page < end; page++)
            {
                _random.NextBytes(content);
                _memory.Write((long)page << PageSize.Shift, isZero ? new byte[PageSize.Bytes] : content);
                changed.Set(page);
            }
        }

        return Seal(changed);
    }

    /// <summary>Writes to the given pages, and takes a snapshot.</summary>
    internal KvmSnapshot CapturePages(params int[] pages)
    {
        PageBitmap changed = new(Pages);
        byte[] content = new byte[PageSize.Bytes];
        foreach (int page in pages)
        {
            _random.NextBytes(content);
            _memory.Write((long)page << PageSize.Shift, content);
            changed.Set(page);
        }

        return Seal(changed);
    }

    /// <summary>Brings together what lies scattered: the next snapshot builds on that.</summary>
    /// <param name="newest">The last snapshot, to go on with that as well.</param>
    internal void Fold(KvmSnapshot? newest = null)
    {
        PageMap folded = _map!.Fold(Pages, 0, Pages);
        PageMap rebased = _map.Rebase(_map, folded, 0, Pages);
        folded.Dispose();
        newest?.Adopt(rebased);
        _map.Dispose();
        _map = rebased;
    }

    /// <summary>The memory that a machine would get from a snapshot.</summary>
    internal static byte[] MemoryOf(KvmSnapshot snapshot)
    {
        using GuestMemory memory = new((long)Pages << PageSize.Shift);
        using PageMap map = snapshot.ShareMemory();
        memory.Install(map);
        return memory.Read(0, Pages << PageSize.Shift).ToArray();
    }

    /// <summary>The registers of a vCPU of a snapshot.</summary>
    internal static byte[] RegistersOf(KvmSnapshot snapshot, int vcpu)
    {
        byte[] registers = new byte[VcpuState.RegistersSize];
        snapshot.Vcpus[vcpu].WriteRegisters(registers);
        return registers;
    }

    public void Dispose()
    {
        _map?.Dispose();
        _memory.Dispose();
    }

    private KvmSnapshot Seal(PageBitmap changed)
    {
        using LayerWriter writer = new(Pages);
        writer.Copy(_memory, changed);
        PageMap map = writer.Seal(_map);
        _map?.Dispose();
        _map = map;

        byte[] registers = new byte[VcpuState.RegistersSize];
        _random.NextBytes(registers);
        VcpuState first = VcpuState.Load(registers, new VcpuWait((ulong)_random.NextInt64(), 5), isWakePending: true, kernel: null);
        _random.NextBytes(registers);
        VcpuState second = VcpuState.Load(registers, VcpuWait.ForRequest(GuestCall.Fork, 0x10_3010), isWakePending: false, kernel: null);
        byte[] input = new byte[_random.Next(1, 50)];
        _random.NextBytes(input);
        return new KvmSnapshot(
            map.Share(),
            Layout,
            [first, second],
            new PlatformDeviceState(127, IsShuttingDown: false, HasReachedMain: true, ExitCode: -7, input, Monotonic: 123_456_789_012),
            TimeSpan.FromTicks(1_234),
            TimeSpan.FromTicks(56_789),
            Disks);
    }
}
