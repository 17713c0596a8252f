using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Kvm.Boot.Acpi;
using Unikraft.Platform.Kvm.Boot.Kernels;
using Unikraft.Platform.Kvm.Devices;
using Unikraft.Platform.Kvm.Interop;
using Unikraft.Platform.Kvm.Memory;

namespace Unikraft.Platform.Kvm.Machines.Kernels;

/// <summary>
/// A machine that runs a kernel: interrupt controllers and timers in KVM, RAM around the gap below 4 GiB, a serial port as its console, and ACPI to find
/// all of that, to be asked to shut down and to power off.
/// </summary>
internal sealed class KernelMachine : IAsyncDisposable
{
    /// <summary>Four pages below the top of the gap, where no device is.</summary>
    private const long ReservedAddress = 0xFFFB_C000;

    private readonly KvmDevice _device;
    private readonly GuestMemory _memory;
    private readonly KernelVcpu[] _vcpus;
    private readonly ConsoleInput _input;
    private readonly SerialPort _serial;
    private readonly PowerDevice _power;
    private readonly InterruptLine[] _lines;
    private readonly bool _hasTscDeadline;
    private readonly TaskCompletionSource<KernelExit> _exited = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly TaskCompletionSource _started = new();
    private readonly Lazy<Task> _disposal;
    private KernelExit? _exit;
    private int _running;

    private KernelMachine(KvmDevice device, KickSignal kickSignal, KvmVm vm, GuestMemory memory, KernelEntry entry, int vcpus, IMachineMonitor monitor)
    {
        _device = device;
        _memory = memory;
        Vm = vm;
        KickSignal = kickSignal;
        _hasTscDeadline = device.Has(KvmConstants.CapTscDeadlineTimer);
        _disposal = new Lazy<Task>(DisposeCoreAsync);
        // The port is told by whoever writes, when the lock of the input is free again.
        _input = new ConsoleInput(static _ => { });
        _lines = [new InterruptLine(vm, SerialPort.Interrupt), new InterruptLine(vm, PowerDevice.Interrupt)];
        _serial = new SerialPort(_lines[0], _input, monitor.OnConsoleOutput);
        _power = new PowerDevice(_lines[1], () => End(new KernelExit.PoweredOff()));
        PortBus.Attach(SerialPort.FirstPort, SerialPort.Ports, _serial);
        PortBus.Attach(PowerDevice.FirstPort, PowerDevice.Ports, _power);
        PortBus.Attach(KeyboardController.FirstPort, KeyboardController.Ports, new KeyboardController(() => End(new KernelExit.Reset())));
        _vcpus = [.. Enumerable.Range(0, vcpus).Select(index => new KernelVcpu(this, index, entry))];
    }

    /// <summary>Completes when the machine has ended and no vCPU runs any more; never fails.</summary>
    internal Task<KernelExit> Exited => _exited.Task;

    internal bool HasEnded => Volatile.Read(ref _exit) is not null;

    internal KvmVm Vm { get; }

    internal KickSignal KickSignal { get; }

    /// <summary>The devices with registers in memory.</summary>
    internal MmioBus MemoryBus { get; } = new();

    /// <summary>The devices with registers in port space.</summary>
    internal MmioBus PortBus { get; } = new();

    /// <summary>Makes a machine and loads a kernel. Its first vCPU stands before the first instruction.</summary>
    /// <exception cref="ImageException">Kernel and initrd do not fit into the memory.</exception>
    /// <exception cref="InvalidRequestException">The command line cannot be passed on.</exception>
    /// <exception cref="HypervisorException">The host refused something.</exception>
    internal static async ValueTask<KernelMachine> CreateAsync(
        KvmDevice device,
        KickSignal kickSignal,
        KernelBoot boot,
        int vcpus,
        long memorySize,
        IMachineMonitor monitor,
        CancellationToken cancellationToken)
    {
        cancellationToken.ThrowIfCancellationRequested();
        GuestMemory memory = new(memorySize);
        KvmVm? vm = null;
        KernelMachine machine;
        try
        {
            AcpiTables tables = AcpiTables.Create(KernelLayout.AcpiTables, vcpus, []);
            KernelEntry entry = KernelLoader.Load(memory, boot, KernelLayout.AcpiTables);
            memory.Write(KernelLayout.AcpiTables, tables.Bytes);
            vm = device.CreateVm();
            SetMemory(vm, memory);
            vm.CreateInterruptControllers(ReservedAddress);
            machine = new KernelMachine(device, kickSignal, vm, memory, entry, vcpus, monitor);
        }
        catch
        {
            vm?.Dispose();
            memory.Dispose();
            throw;
        }

        try
        {
            machine.StartThreads();
            await Task.WhenAll(machine._vcpus.Select(static vcpu => vcpu.Ready)).WaitAsync(cancellationToken).ConfigureAwait(false);
            return machine;
        }
        catch
        {
            await machine.DisposeAsync().ConfigureAwait(false);
            throw;
        }
    }

    /// <summary>Lets the kernel run.</summary>
    /// <exception cref="InvalidOperationException">It was started before.</exception>
    internal void Start()
    {
        ObjectDisposedException.ThrowIf(_disposal.IsValueCreated, this);
        if (!_started.TrySetResult())
        {
            throw new InvalidOperationException("The machine was started before, or has ended.");
        }
    }

    /// <summary>Asks the kernel to shut down: presses the power button.</summary>
    internal void RequestStop()
    {
        if (!HasEnded)
        {
            _power.PressPowerButton();
        }
    }

    internal void Kill() => End(new KernelExit.Killed());

    /// <summary>Types into the console. Takes as many bytes as there is room for, and waits while there is none.</summary>
    /// <returns>How many bytes were taken; 0 when the machine has ended.</returns>
    internal async ValueTask<int> WriteConsoleAsync(ReadOnlyMemory<byte> input, CancellationToken cancellationToken = default)
    {
        int taken = await _input.WriteAsync(input, cancellationToken).ConfigureAwait(false);
        if (taken > 0)
        {
            _serial.OnInput();
        }

        return taken;
    }

    /// <summary>Ends the machine. The first call decides how.</summary>
    internal void End(KernelExit exit)
    {
        if (Interlocked.CompareExchange(ref _exit, exit, null) is not null)
        {
            return;
        }

        _started.TrySetResult();
        _input.Close();
        foreach (KernelVcpu vcpu in _vcpus)
        {
            vcpu.Kick();
        }
    }

    /// <summary>Holds a vCPU back until the machine is started.</summary>
    /// <returns>False when it has ended instead.</returns>
    internal bool WaitForStart()
    {
        _started.Task.GetAwaiter().GetResult();
        return !HasEnded;
    }

    /// <summary>A vCPU has left the guest for good.</summary>
    internal void OnFinished()
    {
        if (Interlocked.Decrement(ref _running) == 0)
        {
            _exited.SetResult(_exit!);
        }
    }

    /// <summary>What a vCPU is to answer to CPUID.</summary>
    internal Action<KvmVcpu> Identify(int index) => vcpu =>
    {
        KvmCpuid2 cpuid = KernelCpuid.Create(in _device.SupportedCpuid, index, _vcpus.Length, _hasTscDeadline);
        vcpu.Set(ref cpuid);
    };

    public ValueTask DisposeAsync() => new(_disposal.Value);

    private void StartThreads()
    {
        _running = _vcpus.Length;
        int started = 0;
        try
        {
            for (; started < _vcpus.Length; started++)
            {
                _vcpus[started].Start();
            }
        }
        catch (Exception error)
        {
            HypervisorException refusal = new("The host refused a thread for a vCPU.", error);
            End(new KernelExit.Failed(refusal));
            for (; started < _vcpus.Length; started++)
            {
                OnFinished();
            }

            throw refusal;
        }
    }

    private async Task DisposeCoreAsync()
    {
        Kill();
        await Exited.ConfigureAwait(false);
        foreach (InterruptLine line in _lines)
        {
            line.Close();
        }

        Vm.Dispose();
        _memory.Dispose();
    }

    private static void SetMemory(KvmVm vm, GuestMemory memory)
    {
        KernelMemoryMap map = new(memory.Size);
        vm.SetMemory(memory, slot: 0, guestAddress: 0, offset: 0, map.LowEnd);
        if (memory.Size > map.LowEnd)
        {
            vm.SetMemory(memory, slot: 1, KernelMemoryMap.GapEnd, map.LowEnd, memory.Size - map.LowEnd);
        }
    }
}
