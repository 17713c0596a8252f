using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Unikraft.Platform.Kvm.Boot;
using Unikraft.Platform.Kvm.Boot.Kernels;
using Unikraft.Platform.Kvm.Devices;
using Unikraft.Platform.Kvm.Devices.Virtio;
using Unikraft.Platform.Kvm.Interop;
using Unikraft.Platform.Kvm.Machines.Kernels;
using Unikraft.Platform.Kvm.Snapshots.Files;
using Unikraft.Platform.Kvm.Vcpus;

namespace Unikraft.Platform.Kvm.Tests.Snapshots;

/// <summary>The state file that a machine with a kernel has, made without one: kernels run on hardware that not every host has.</summary>
internal static class SyntheticKernel
{
    /// <summary>The state of a kernel with the memory and the disks of a flat guest.</summary>
    internal static byte[] StateOf(SnapshotState flat) => StateFile.Encode(flat with
    {
        Layout = new FlatGuestLayout([], stacksStart: 0, flat.Layout.MemorySize, flat.Vcpus.Count),
        Vcpus = [.. flat.Vcpus.Select((vcpu, index) => VcpuState.Load(RegistersOf(vcpu), wait: null, isWakePending: false, KernelRegisters.Read(RegistersOf(index))))],
        Kernel = new KernelState
        {
            Chips = [.. Enumerable.Range(0, KernelState.InterruptControllers).Select(chip => ChipOf(chip))],
            Timer = Filled<KvmPitState2>(7),
            ClockIndex = 0x0B,
            Clock = 12_345_678_901,
            TakenAt = new DateTimeOffset(2026, 1, 2, 3, 4, 5, TimeSpan.Zero),
            TscKhz = 2_500_000,
            Serial = new SerialPortState(12, 1, 3, 11, 0x55, HasFifos: true, IsTransmitterEmptyPending: true, new byte[] { 1, 2, 3 }),
            Generation = new SerialPortState(1, 0, 0x80, 0, 0, HasFifos: false, IsTransmitterEmptyPending: false, ReadOnlyMemory<byte>.Empty),
            Entropy = new VirtioDeviceState
            {
                Status = 15,
                DriverFeatures = 1UL << 32,
                Queues = [new(new VirtqueueSettings { Size = 64, Descriptors = 0x6000, Available = 0x7000, Used = 0x8000 }, IsReady: true, 9, 9)],
            },
            PowerEvents = 1,
            Rule = RunningRule.FirstOutput,
        },
    });

    /// <summary>The bytes that a file has for kernels alone.</summary>
    internal static int SizeOf(int vcpus) => KernelState.Size + (vcpus * KernelRegisters.Size);

    private static byte[] RegistersOf(VcpuState vcpu)
    {
        byte[] registers = new byte[VcpuState.RegistersSize];
        vcpu.WriteRegisters(registers);
        return registers;
    }

    private static byte[] RegistersOf(int vcpu)
    {
        KvmAllMsrs msrs = new() { NMsrs = 5 };
        KvmCpuid2 cpuid = new() { Nent = 6 };
        for (int i = 0; i < 5; i++)
        {
            msrs.Entries[i] = new KvmMsrEntry { Index = (uint)(0x10 + i), Data = 0x0123_4567_89AB_CDEF };
        }

        byte[] bytes = new byte[KernelRegisters.Size];
        MemoryMarshal.Write(bytes, Filled<KvmLapicState>(vcpu + 1));
        int position = Unsafe.SizeOf<KvmLapicState>() + Unsafe.SizeOf<KvmMpState>();
        MemoryMarshal.Write(bytes.AsSpan(position), in msrs);
        MemoryMarshal.Write(bytes.AsSpan(position + Unsafe.SizeOf<KvmAllMsrs>()), in cpuid);
        return bytes;
    }

    private static KvmIrqchip ChipOf(int chip)
    {
        KvmIrqchip made = Filled<KvmIrqchip>(chip + 3);
        made.ChipId = (uint)chip;
        return made;
    }

    private static T Filled<T>(int seed)
        where T : unmanaged
    {
        byte[] bytes = new byte[Unsafe.SizeOf<T>()];
        new Random(seed).NextBytes(bytes);
        return MemoryMarshal.Read<T>(bytes);
    }
}
