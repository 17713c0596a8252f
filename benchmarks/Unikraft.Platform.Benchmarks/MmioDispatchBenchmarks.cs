using BenchmarkDotNet.Attributes;
using Unikraft.Platform.Kvm.Boot;
using Unikraft.Platform.Kvm.Devices;
using Unikraft.Platform.Kvm.Memory;

namespace Unikraft.Platform.Benchmarks;

/// <summary>What the library adds to an exit of the guest: from the bus to the platform device and back, without KVM. Allocates nothing.</summary>
[MemoryDiagnoser]
public class MmioDispatchBenchmarks
{
    private const int MemoryMb = 64;
    private const ulong Doorbell = FlatGuestLayout.DevicePhysicalAddress + 8;

    private readonly SilentMachine _machine = new();
    private readonly byte[] _data = new byte[sizeof(uint)];
    private GuestMemory _memory = null!;
    private MmioBus _bus = null!;

    /// <summary>Puts a bus, its two devices and the guest's memory together, with a NOP in the call block of vCPU 0.</summary>
    [GlobalSetup]
    public void SetUp()
    {
        ElfImage image = ElfImage.Parse("hello", File.ReadAllBytes(Guests.PathOf("hello")));
        FlatGuestLayout layout = new(image, MemoryMb << 20, vcpus: 1);
        _memory = new GuestMemory(layout.MemorySize);
        PlatformDevice platform = new(_memory, layout, _machine, _machine, new GuestClock(TimeProvider.System, start: 0), new ConsoleInput(_machine));
        _bus = new MmioBus();
        _bus.Attach(FlatGuestLayout.DevicePhysicalAddress, PageSize.Bytes, platform);
        _bus.Attach(FlatGuestLayout.FaultPhysicalAddress, PageSize.Bytes, new FaultDevice(_memory, layout, platform, _machine));
        _memory.Write(FlatGuestLayout.CallBlock(vcpu: 0), (int)GuestCall.Nop);
    }

    /// <summary>The doorbell of a call that does nothing.</summary>
    [Benchmark]
    public void Nop() => _bus.Write(_machine, Doorbell, _data);

    /// <summary>A register read.</summary>
    [Benchmark]
    public void Read() => _bus.Read(_machine, FlatGuestLayout.DevicePhysicalAddress, _data);

    /// <summary>Frees the memory.</summary>
    [GlobalCleanup]
    public void CleanUp() => _memory.Dispose();
}
