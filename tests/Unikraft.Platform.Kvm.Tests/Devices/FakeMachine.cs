using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Kvm.Boot;
using Unikraft.Platform.Kvm.Devices;
using Unikraft.Platform.Kvm.Memory;
using Unikraft.Platform.Kvm.Tests.Boot;
using Unikraft.Platform.Kvm.Tests.Testing;
using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Kvm.Tests.Devices;

/// <summary>The devices of a machine without KVM: what they ask of the machine is written down.</summary>
internal sealed class FakeMachine : IMachineControl, IDisposable
{
    internal const int Vcpus = 2;
    internal const long Size = 3 << 20;

    internal FakeMachine()
    {
        ElfBuilder builder = ElfBuilder.Program();
        builder.Segments.Add(new() { Address = ElfBuilder.Base + 0x1000, MemorySize = 0x2000, Flags = ElfBuilder.Read | ElfBuilder.Write });
        Layout = new FlatGuestLayout(ElfImage.Parse("fake.elf", builder.Build()), Size, Vcpus);
        Memory = new GuestMemory(Size);
        Input = new ConsoleInput(this);
        Platform = new PlatformDevice(Memory, Layout, Monitor, this, new GuestClock(Time, 0), Input);
        Faults = new FaultDevice(Memory, Layout, Platform, this);
    }

    internal ManualTimeProvider Time { get; } = new();

    internal FlatGuestLayout Layout { get; }

    internal GuestMemory Memory { get; }

    internal RecordingMonitor Monitor { get; } = new();

    internal ConsoleInput Input { get; }

    internal PlatformDevice Platform { get; }

    internal FaultDevice Faults { get; }

    internal List<MachineExit> Exits { get; } = [];

    internal List<int> Woken { get; } = [];

    internal List<(int Vcpu, ulong Deadline, uint Mask)> Waits { get; } = [];

    internal List<(int Vcpu, GuestCall Call, ulong Address)> Requests { get; } = [];

    internal uint Events { get; private set; }

    /// <summary>What another thread does just before the events are looked at again.</summary>
    internal Action BeforeFollowing { get; set; } = static () => { };

    public void End(MachineExit exit) => Exits.Add(exit);

    public void BeginWait(int vcpu, ulong deadline, uint mask) => Waits.Add((vcpu, deadline, mask));

    public bool BeginRequest(int vcpu, GuestCall call, ulong address)
    {
        Requests.Add((vcpu, call, address));
        return Requests.Count == 1;
    }

    public void Wake(int vcpu) => Woken.Add(vcpu);

    public void Raise(uint events) => Events |= events;

    public void Lower(uint events) => Events &= ~events;

    public void Follow(uint events, Func<bool> isPending)
    {
        Action before = BeforeFollowing;
        BeforeFollowing = static () => { };
        before();
        Events = isPending() ? Events | events : Events & ~events;
    }

    public void Dispose() => Memory.Dispose();

    /// <summary>Makes a call as a guest does.</summary>
    internal CallResult Call(uint op, ulong arg0 = 0, ulong arg1 = 0, int vcpu = 0)
    {
        long block = FlatGuestLayout.CallBlock(vcpu);
        Memory.Write(block, op);
        Memory.Write(block + 4, int.MinValue);
        Memory.Write(block + 8, arg0);
        Memory.Write(block + 16, arg1);
        Platform.Write(new Initiator(vcpu), 8, [0, 0, 0, 0]);
        return new CallResult(Memory.Read<int>(block + 4), Memory.Read<ulong>(block + 40), Memory.Read<ulong>(block + 48));
    }

    /// <summary>A vCPU as a device sees it.</summary>
    internal sealed record Initiator(int Index, ulong StackPointer = 0, ulong FaultAddress = 0) : IMmioInitiator;

    /// <summary>What is in a call block afterwards.</summary>
    internal sealed record CallResult(int Status, ulong First, ulong Second);
}
