using Unikraft.Platform.Kvm.Boot;
using Unikraft.Platform.Kvm.Devices;
using Unikraft.Platform.Kvm.Memory;

namespace Unikraft.Platform.Kvm.Tests.Devices;

/// <summary>An exit of the guest makes no garbage, so that no guest stands still for a collection that its own exits brought about.</summary>
public sealed class MmioDispatchAllocationTests : IDisposable
{
    private const int Calls = 10_000;
    private const int SmallestObject = 24;
    private const ulong Doorbell = FlatGuestLayout.DevicePhysicalAddress + 8;
    private const uint Unknown = 12_345;
    private const uint RandomBytes = 64;

    private readonly FakeMachine _machine = new();
    private readonly MmioBus _bus = new();
    private readonly FakeMachine.Initiator _initiator = new(Index: 0);
    private readonly byte[] _data = new byte[sizeof(uint)];

    public MmioDispatchAllocationTests()
    {
        _bus.Attach(FlatGuestLayout.DevicePhysicalAddress, PageSize.Bytes, _machine.Platform);
        _bus.Attach(FlatGuestLayout.FaultPhysicalAddress, PageSize.Bytes, _machine.Faults);
    }

    [Theory]
    [InlineData((uint)GuestCall.Nop)]
    [InlineData((uint)GuestCall.InitLevel)]
    [InlineData((uint)GuestCall.ExitCode)]
    [InlineData((uint)GuestCall.ConsoleRead)]
    [InlineData((uint)GuestCall.Clock)]
    [InlineData((uint)GuestCall.Random)]
    [InlineData(Unknown)]
    public void A_call_allocates_nothing(uint op)
    {
        // Arguments that are valid for all of these calls: level or address, shutdown bit or length.
        bool usesMemory = op is (uint)GuestCall.Random or (uint)GuestCall.ConsoleRead;
        ulong first = usesMemory ? (ulong)_machine.Layout.HeapStart : 1;
        ulong second = usesMemory ? RandomBytes : 0;
        int status = _machine.Call(op, first, second).Status;

        Assert.Equal(op == Unknown ? -38 : 0, status);
        Assert.Equal(0, AllocatedBy(() => _bus.Write(_initiator, Doorbell, _data)));
    }

    [Fact]
    public void A_register_read_allocates_nothing() =>
        Assert.Equal(0, AllocatedBy(() => _bus.Read(_initiator, FlatGuestLayout.DevicePhysicalAddress, _data)));

    [Fact]
    public void An_access_to_no_device_allocates_nothing() =>
        Assert.Equal(0, AllocatedBy(() => _bus.Write(_initiator, address: 0x1234_5678_9000, _data)));

    [Fact]
    public void The_counter_sees_what_is_allocated() =>
        Assert.True(AllocatedBy(() => GC.KeepAlive(new object())) >= Calls * SmallestObject);

    public void Dispose() => _machine.Dispose();

    private static long AllocatedBy(Action action)
    {
        // What is allocated once, by the first call, is not part of an exit.
        action();
        long before = GC.GetAllocatedBytesForCurrentThread();
        for (int i = 0; i < Calls; i++)
        {
            action();
        }

        return GC.GetAllocatedBytesForCurrentThread() - before;
    }
}
