using System.Runtime.InteropServices;
using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Kvm.Boot.Kernels;
using Unikraft.Platform.Kvm.Devices;
using Unikraft.Platform.Kvm.Devices.Virtio;
using Unikraft.Platform.Kvm.Interop;
using Unikraft.Platform.Kvm.Memory;
using Unikraft.Platform.Kvm.Snapshots;
using Unikraft.Platform.Kvm.Vcpus;

namespace Unikraft.Platform.Kvm.Machines.Kernels;

/// <summary>
/// The devices of a machine with a kernel, apart from its disks: console, power, reset, random bytes, the platform device and the ports of QEMU's conventions.
/// </summary>
internal sealed class KernelDevices : IVcpuGuest, IGuestState
{
    private readonly IMachineControl _control;
    private readonly Task<KvmVm> _vm;
    private readonly RunningRule _rule;
    private readonly GuestClock _clock;
    private readonly SerialPort _serial;
    private readonly GenerationPort _generation;
    private readonly RealTimeClock _realTime;
    private readonly KernelPlatformDevice _platform;
    private readonly List<InterruptLine> _lines;

    /// <param name="vm">Where interrupts go.</param>
    /// <param name="rule">When the guest counts as having reached its main entry point without saying so.</param>
    /// <param name="monitor">Hears of what happens.</param>
    /// <param name="control">The machine.</param>
    /// <param name="clock">Its clock.</param>
    /// <param name="memory">Its memory, with the generation id that it begins with.</param>
    internal KernelDevices(Task<KvmVm> vm, RunningRule rule, IMachineMonitor monitor, IMachineControl control, GuestClock clock, GuestMemory memory)
    {
        _control = control;
        _vm = vm;
        _rule = rule;
        _clock = clock;
        _platform = new KernelPlatformDevice(monitor, control);

        // The port is told by whoever writes, when the lock of the input is free again.
        Input = new ConsoleInput();
        _lines =
        [
            new InterruptLine(vm, SerialPort.Interrupt),
            new InterruptLine(vm, PowerDevice.Interrupt),
            new InterruptLine(vm, GenerationPort.Interrupt),
            new InterruptLine(vm, KernelLayout.EntropyInterrupt),
        ];
        Action onOutput = rule == RunningRule.FirstOutput ? _platform.OnMainReached : static () => { };
        _serial = new SerialPort(
            _lines[0],
            Input,
            bytes =>
            {
                onOutput();
                monitor.OnConsoleOutput(bytes);
            },
            rule == RunningRule.ListensToConsole ? _platform.OnMainReached : null);
        Power = new PowerDevice(_lines[1], _platform.OnPowerOff);
        _generation = new GenerationPort(_lines[2], memory.Read(KernelLayout.GenerationId, KernelLayout.GenerationIdSize));
        Entropy = new VirtioEntropy(memory, _lines[3].Set);
        _realTime = new RealTimeClock(clock.TimeProvider);
        Ports.Attach(RealTimeClock.FirstPort, RealTimeClock.Ports, _realTime);
        Ports.Attach(SerialPort.FirstPort, SerialPort.Ports, _serial);
        Ports.Attach(GenerationPort.FirstPort, SerialPort.Ports, _generation.Port);
        Ports.Attach(PowerDevice.FirstPort, PowerDevice.Ports, Power);
        Ports.Attach(KeyboardController.FirstPort, KeyboardController.Ports, new KeyboardController(OnReset));
        Ports.Attach(KernelPlatformDevice.FirstPort, KernelPlatformDevice.Length, _platform);
        Ports.Attach(KernelPlatformDevice.PanicPort, 1, new ActionDevice(KernelPlatformDevice.PanicEvents, OnPanicPort));
        ActionDevice debugExit = new(0, _platform.OnDebugExit);
        Ports.Attach(KernelPlatformDevice.DebugExitPort, sizeof(uint), debugExit);
        Ports.Attach(KernelPlatformDevice.OldDebugExitPort, sizeof(uint), debugExit);
        Memory.Attach(KernelPlatformDevice.Address, KernelPlatformDevice.Length, _platform);
        Memory.Attach(KernelLayout.EntropyAddress, VirtioDevice.WindowLength, Entropy);
    }

    /// <summary>The devices with registers in memory.</summary>
    internal MmioBus Memory { get; } = new();

    /// <summary>The devices with registers in port space.</summary>
    public MmioBus Ports { get; } = new();

    internal PowerDevice Power { get; }

    /// <summary>The source of random bytes; held and disposed of with the disks.</summary>
    internal VirtioEntropy Entropy { get; }

    internal ConsoleInput Input { get; }

    internal bool HasReachedMain => _platform.HasReachedMain;

    /// <summary>What each vCPU answers to CPUID, and the MSRs that it has. Set before the machine starts.</summary>
    internal (KvmCpuid2 Cpuid, uint[] Msrs, int TscKhz)[] Identities { get; init; } = [];

    public VcpuState NewVcpuState(int index) =>
        new() { Kernel = new KernelRegisters(in Identities[index].Cpuid, Identities[index].Msrs) };

    public IGuestCut NewCut(VcpuState[] vcpus) => new KernelCut(this, vcpus);

    /// <summary>Puts back what was taken. All vCPUs have their states, and none runs yet.</summary>
    internal void Restore(KernelState state, PlatformDeviceState device, DateTimeOffset now)
    {
        KvmVm vm = _vm.GetAwaiter().GetResult();
        foreach (KvmIrqchip saved in state.Chips)
        {
            KvmIrqchip chip = saved;
            vm.Set(ref chip);
        }

        KvmPitState2 timer = state.Timer;
        vm.Set(ref timer);
        _realTime.Index = state.ClockIndex;
        vm.SetClock(state.Clock + (ulong)state.ElapsedAt(now).Ticks * TimeSpan.NanosecondsPerTick);
        _platform.Restore(device);
        Input.Restore(device.ConsoleInput);

        // Raises the lines again that were raised, which is an interrupt more at worst.
        _serial.Restore(state.Serial);
        Entropy.Restore(state.Entropy);
        Power.Restore(state.PowerEvents);
        Power.TellGeneration();
        _generation.Port.Restore(state.Generation);
        _generation.Tell();
    }

    /// <summary>The interrupt line of a disk.</summary>
    internal InterruptLine NewDiskLine(int slot)
    {
        InterruptLine line = new(_vm, KernelLayout.FirstDiskInterrupt + (uint)slot);
        _lines.Add(line);
        return line;
    }

    /// <summary>Types into the console. Takes as many bytes as there is room for, and waits while there is none.</summary>
    /// <returns>How many bytes were taken; 0 when the machine has ended.</returns>
    internal async ValueTask<int> WriteConsoleAsync(ReadOnlyMemory<byte> input, CancellationToken cancellationToken)
    {
        int taken = await Input.WriteAsync(input, cancellationToken).ConfigureAwait(false);
        if (taken > 0)
        {
            _serial.OnInput();
        }

        return taken;
    }

    /// <summary>Cuts the lines before the VM goes.</summary>
    internal void CutLines()
    {
        foreach (InterruptLine line in _lines)
        {
            line.Close();
        }
    }

    public void FinishWait(int vcpu, uint events) => throw new InvalidOperationException("The vCPUs of a kernel sleep in KVM.");

    public void FinishRequest(int vcpu, VcpuWait request, RequestAnswer answer) =>
        throw new InvalidOperationException("A kernel asks for nothing.");

    public void OnTripleFault() => _platform.OnTripleFault();

    public void OnEmulationFailure(IMmioInitiator vcpu, in KvmRegs regs) => _control.End(new MachineExit.Failed(new HypervisorException(
        $"KVM cannot emulate the instruction at 0x{regs.Rip:x} of vCPU {vcpu.Index}. A kernel needs hardware that virtualises ring 0.")));

    private sealed class KernelCut(KernelDevices devices, VcpuState[] vcpus) : IGuestCut
    {
        private readonly PlatformDeviceCut _platform = new();
        private readonly VirtioDeviceCut _entropy = devices.Entropy.NewCut();
        private readonly SerialPortCut _serial = new();
        private readonly SerialPortCut _generation = new();
        private readonly KvmIrqchip[] _chips = new KvmIrqchip[KernelState.InterruptControllers];
        private KvmPitState2 _timer;
        private byte _clockIndex;
        private byte _powerEvents;
        private ulong _clock;
        private DateTimeOffset _takenAt;

        public void Take()
        {
            // The devices first: what they say later is not in the clone, and an interrupt for it does no harm.
            devices._serial.Save(_serial);
            devices._generation.Port.Save(_generation);
            devices.Entropy.Save(_entropy);
            _powerEvents = devices.Power.PendingEvents;
            _clockIndex = devices._realTime.Index;
            devices._platform.Save(_platform, devices.Input, devices._clock.Monotonic);
            KvmVm vm = devices._vm.GetAwaiter().GetResult();
            _clock = vm.GetClock();
            _takenAt = devices._clock.TimeProvider.GetUtcNow();
            for (uint i = 0; i < KernelState.InterruptControllers; i++)
            {
                _chips[i].ChipId = i;
                vm.Get(ref _chips[i]);
            }

            vm.Get(ref _timer);

            // One that has events pending for another takes them when asked for its run state, so all are asked before any is saved.
            foreach (VcpuState vcpu in vcpus)
            {
                vcpu.Kernel!.SaveRunState();
            }

            foreach (VcpuState vcpu in vcpus)
            {
                vcpu.SaveStanding();
            }
        }

        public PlatformDeviceState ToDevice() => _platform.ToState();

        public KernelState? ToKernel() => new()
        {
            Chips = _chips,
            Timer = _timer,
            ClockIndex = _clockIndex,
            Clock = _clock,
            TakenAt = _takenAt,
            TscKhz = devices.Identities[0].TscKhz,
            Serial = _serial.ToState(),
            Generation = _generation.ToState(),
            Entropy = _entropy.ToState(),
            PowerEvents = _powerEvents,
            Rule = devices._rule,
        };

        public void Dispose() => _platform.Dispose();
    }

    /// <remarks>
    /// A kernel that reboots in order first closes the inputs of the I/O APIC, so that no device interrupts what is booted next; one that restarts because it has
    /// panicked no longer can. That is all that tells the two apart from outside.
    /// </remarks>
    private void OnReset()
    {
        KvmIrqchip chip = new() { ChipId = KvmIoapicState.ChipId };
        _vm.GetAwaiter().GetResult().Get(ref chip);
        _platform.OnReset(MemoryMarshal.Read<KvmIoapicState>(chip.Chip).HasOpenInput);
    }

    private void OnPanicPort(uint events)
    {
        if ((events & KernelPlatformDevice.PanicEvents) != 0)
        {
            _platform.OnPanic();
        }
    }
}
