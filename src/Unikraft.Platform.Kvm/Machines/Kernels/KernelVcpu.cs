using System.Globalization;
using Unikraft.Platform.Kvm.Boot.Kernels;
using Unikraft.Platform.Kvm.Devices;
using Unikraft.Platform.Kvm.Interop;
using Unikraft.Platform.Kvm.Vcpus;

namespace Unikraft.Platform.Kvm.Machines.Kernels;

/// <summary>A vCPU of a machine with a kernel, and its thread. It sleeps, wakes and is started by others in KVM itself.</summary>
internal sealed class KernelVcpu : IMmioInitiator
{
    private const int StackSize = 256 << 10;
    private const uint MiscEnable = 0x1A0;
    private const ulong FastStrings = 1;

    private readonly KernelMachine _machine;
    private readonly KernelEntry _entry;
    private readonly Thread _thread;
    private readonly TaskCompletionSource _ready = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly Lock _kickLock = new();
    private VcpuKick? _kick;
    private KvmVcpu? _kvm;

    internal KernelVcpu(KernelMachine machine, int index, KernelEntry entry)
    {
        _machine = machine;
        Index = index;
        _entry = entry;
        _thread = new Thread(Main, StackSize)
        {
            IsBackground = true,
            Name = string.Create(CultureInfo.InvariantCulture, $"vcpu{index}"),
        };
    }

    public int Index { get; }

    /// <summary>Completes when the vCPU is in its first state, and fails when it could not be brought there.</summary>
    internal Task Ready => _ready.Task;

    public ulong StackPointer
    {
        get
        {
            KvmRegs regs = default;
            _kvm!.Get(ref regs);
            return regs.Rsp;
        }
    }

    public ulong FaultAddress
    {
        get
        {
            KvmSregs sregs = default;
            _kvm!.Get(ref sregs);
            return sregs.Cr2;
        }
    }

    internal void Start() => _thread.Start();

    /// <summary>Makes the thread leave the guest for good. The machine has ended already.</summary>
    internal void Kick()
    {
        lock (_kickLock)
        {
            _kick?.Send();
        }
    }

    private void Main()
    {
        try
        {
            using KvmVcpu kvm = _machine.Vm.CreateVcpu(Index, _machine.Identify(Index));
            _kvm = kvm;
            KvmMsrs msrs = new() { NMsrs = 1, First = new KvmMsrEntry { Index = MiscEnable, Data = FastStrings } };
            kvm.Set(ref msrs);
            if (Index == 0)
            {
                // The others wait for the first one to start them.
                _entry.Apply(kvm);
            }

            try
            {
                lock (_kickLock)
                {
                    _kick = new VcpuKick(_machine.KickSignal, Libc.GetThreadId(), kvm.RunPage);
                }

                _ready.SetResult();
                if (_machine.WaitForStart())
                {
                    Run(kvm);
                }
            }
            finally
            {
                lock (_kickLock)
                {
                    _kick = null;
                }
            }
        }
        catch (Exception error)
        {
            // An exception that leaves the thread would end the host's process; here it ends the machine.
            _ready.TrySetException(error);
            _machine.End(new KernelExit.Failed(error));
        }
        finally
        {
            _machine.OnFinished();
        }
    }

    private void Run(KvmVcpu kvm)
    {
        // Whoever ends the machine sets the flag first and kicks afterwards: the kick stays in the page, so none is lost.
        while (!_machine.HasEnded)
        {
            if (kvm.Run())
            {
                HandleExit(kvm.RunPage);
            }
        }
    }

    private void HandleExit(KvmRunPage page)
    {
        switch (page.ExitReason)
        {
            case KvmConstants.ExitIo:
                AccessPorts(page);
                break;
            case KvmConstants.ExitMmio when page.MmioIsWrite:
                _machine.MemoryBus.Write(this, page.MmioAddress, page.MmioData);
                break;
            case KvmConstants.ExitMmio:
                _machine.MemoryBus.Read(this, page.MmioAddress, page.MmioData);
                break;
            case KvmConstants.ExitIntr:
                break;
            case KvmConstants.ExitShutdown:
                _machine.End(new KernelExit.TripleFault());
                break;
            default:
                _machine.End(new KernelExit.Failed(new HypervisorException(Describe(page))));
                break;
        }
    }

    private void AccessPorts(KvmRunPage page)
    {
        int size = page.IoSize;
        ulong port = page.IoPort;
        bool isWrite = page.IoIsWrite;
        for (Span<byte> data = page.IoData; size > 0 && data.Length >= size; data = data[size..])
        {
            if (isWrite)
            {
                _machine.PortBus.Write(this, port, data[..size]);
            }
            else
            {
                _machine.PortBus.Read(this, port, data[..size]);
            }
        }
    }

    private string Describe(KvmRunPage page) => page.ExitReason switch
    {
        KvmConstants.ExitInternalError => string.Create(
            CultureInfo.InvariantCulture,
            $"KVM reports an internal error of vCPU {Index}, suberror {page.InternalSuberror}. A kernel needs hardware that virtualises ring 0."),
        KvmConstants.ExitFailEntry => string.Create(
            CultureInfo.InvariantCulture,
            $"The CPU refused to enter the guest on vCPU {Index}, hardware reason 0x{page.FailEntryReason:x}."),
        uint reason => string.Create(CultureInfo.InvariantCulture, $"vCPU {Index} left the guest for the unexpected reason {reason}."),
    };
}
