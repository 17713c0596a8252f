using System.Diagnostics.CodeAnalysis;
using System.Globalization;
using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Kvm.Devices;
using Unikraft.Platform.Kvm.Interop;

namespace Unikraft.Platform.Kvm.Vcpus;

/// <summary>A vCPU of a machine. Runs on the <see cref="VcpuThread"/> it is given to.</summary>
internal sealed class Vcpu : IMmioInitiator
{
    private static readonly TimeSpan TimerResolution = TimeSpan.FromMilliseconds(1);

    private readonly VcpuEnvironment _environment;
    private readonly RunControl _control;
    private readonly Action<KvmVcpu, int> _initialize;
    private readonly Lazy<ITimer> _timer;
    private readonly ThreadCpuClock _cpuClock = new();
    private KvmVcpu? _kvm;
    private long _exits;
    private volatile bool _needsAttention;
    private volatile bool _isNmiRequested;
    private bool _isExitPending;

    /// <summary>The state it was restored from or last saved to.</summary>
    private VcpuState? _lastState;

    /// <param name="index">The number of the vCPU, from 0.</param>
    /// <param name="environment">What it shares with the other vCPUs of the machine.</param>
    /// <param name="initialize">Brings the vCPU into its first state. Called on its thread.</param>
    /// <param name="name">The name of the thread.</param>
    internal Vcpu(int index, VcpuEnvironment environment, Action<KvmVcpu, int> initialize, string name)
    {
        Index = index;
        _environment = environment;
        _control = environment.Control;
        _initialize = initialize;
        Name = name;
        _timer = new Lazy<ITimer>(() => environment.TimeProvider.CreateTimer(
            static control => ((RunControl)control!).OnTimer(),
            _control,
            Timeout.InfiniteTimeSpan,
            Timeout.InfiniteTimeSpan));
    }

    public int Index { get; }

    /// <summary>The name for the thread.</summary>
    internal string Name { get; }

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

    /// <summary>How often the guest was left.</summary>
    internal long Exits => Volatile.Read(ref _exits);

    /// <summary>The CPU time that it has consumed.</summary>
    internal TimeSpan CpuTime => _cpuClock.Elapsed;

    /// <summary>Whether the thread has to look at the run control before it enters the guest again.</summary>
    internal bool NeedsAttention
    {
        get => _needsAttention;
        set => _needsAttention = value;
    }

    /// <summary>How to kick the vCPU, as long as it can be. Guarded by the gate.</summary>
    internal VcpuKick? Kick { get; set; }

    /// <summary>Whether the thread waits for the gate to be pulsed. Guarded by the gate.</summary>
    internal bool IsAtGate { get; set; }

    /// <summary>The sleep the vCPU is in. Belongs to its thread.</summary>
    internal VcpuWait? Wait { get; set; }

    /// <summary>Whether the wake event is pending. Guarded by the gate.</summary>
    internal bool IsWakePending { get; set; }

    /// <summary>The answer to the request that the vCPU waits with. Guarded by the gate.</summary>
    internal RequestAnswer? Answer { get; set; }

    /// <summary>The last cut that the vCPU took part in. Belongs to its thread.</summary>
    internal Cut? LastCut { get; private set; }

    /// <summary>The cut that the vCPU stands still for. Belongs to its thread.</summary>
    private Cut? StandingFor { get; set; }

    /// <summary>Runs the vCPU to the end of its machine, on the thread that made it.</summary>
    /// <param name="kvm">KVM's vCPU; <see langword="null"/> when it could not be made.</param>
    /// <param name="error">Why it could not.</param>
    internal void Run(KvmVcpu? kvm, Exception? error)
    {
        _cpuClock.Start();
        try
        {
            if (TryInitialize(kvm, error))
            {
                RunLoop(kvm);
            }
        }
        catch (Exception failure)
        {
            // An exception that leaves the thread would end the host's process; here it ends the machine.
            _control.End(new MachineExit.Failed(failure));
        }
        finally
        {
            _control.OnUnkickable(this);
            _cpuClock.Stop();
            DisposeTimer();
            _control.OnFinished();
        }
    }

    internal void RequestNmi() => _isNmiRequested = true;

    /// <summary>Stores the state, on the thread of the vCPU.</summary>
    internal void Enter(Cut cut)
    {
        LastCut = StandingFor = cut;
        VcpuState state = cut.StateOf(Index);
        state.Save(_kvm!, Wait, _lastState);
        _lastState = state;
    }

    /// <summary>Goes on, if the vCPU stood still for a cut. On its thread.</summary>
    internal void LeaveCut()
    {
        if (StandingFor is { } cut)
        {
            StandingFor = null;
            cut.OnResumed(_environment.TimeProvider.GetTimestamp());
        }
    }

    /// <summary>Puts back the part of the state that is not KVM's. A request is over in a clone: whoever restores answers it.</summary>
    internal void Restore(VcpuState state) =>
        (_lastState, Wait, IsWakePending) = (state, state.Wait is { IsRequest: true } ? null : state.Wait, state.IsWakePending);

    internal void ArmTimer(ulong nanoseconds)
    {
        // Beyond what a timer can take, waking up early and sleeping on is all the same.
        TimeSpan due = TimeSpan.FromTicks((long)Math.Min(nanoseconds / TimeSpan.NanosecondsPerTick, (ulong)TimeSpan.TicksPerDay));
        _timer.Value.Change(due < TimerResolution ? TimerResolution : due, Timeout.InfiniteTimeSpan);
    }

    internal void DisarmTimer()
    {
        if (_timer.IsValueCreated)
        {
            _timer.Value.Change(Timeout.InfiniteTimeSpan, Timeout.InfiniteTimeSpan);
        }
    }

    private bool TryInitialize([NotNullWhen(true)] KvmVcpu? kvm, Exception? error)
    {
        try
        {
            _kvm = kvm ?? throw new HypervisorException(error?.Message ?? "KVM gave none", error);
            _initialize(kvm, Index);
        }
        catch (HypervisorException failure)
        {
            _control.OnUnusable(new HypervisorException($"vCPU {Index} could not be made: {failure.Message}", failure));
            return false;
        }

        _needsAttention = true;
        _control.OnReady(this, new VcpuKick(_environment.KickSignal, Libc.GetThreadId(), kvm.RunPage));
        return true;
    }

    private void RunLoop(KvmVcpu kvm)
    {
        while (true)
        {
            if (_needsAttention)
            {
                CompletePendingExit(kvm);
                if (!_control.Attend(this))
                {
                    return;
                }

                kvm.RunPage.ForgetRegisters();

                if (_isNmiRequested)
                {
                    _isNmiRequested = false;
                    Wait = null;
                    kvm.InjectNmi();
                }

                continue;
            }

            if (Wait is { } wait)
            {
                if (!_control.Sleep(this, out uint events, out RequestAnswer? answer))
                {
                    continue;
                }

                if (answer is { } given)
                {
                    _environment.Guest.FinishRequest(Index, wait, given);
                }
                else
                {
                    _environment.Guest.FinishWait(Index, events);
                }
            }

            if (kvm.Run())
            {
                HandleExit(kvm.RunPage);
            }
            else
            {
                ClearImmediateExit(kvm.RunPage);
            }
        }
    }

    private static void ClearImmediateExit(KvmRunPage page)
    {
        page.ImmediateExit = false;

        // Against the order of the kicker: cleared first, then the flag is read.
        Interlocked.MemoryBarrier();
    }

    /// <summary>Lets KVM finish the instruction that left the guest, so that the registers are those after it.</summary>
    private void CompletePendingExit(KvmVcpu kvm)
    {
        KvmRunPage page = kvm.RunPage;
        while (_isExitPending)
        {
            page.ImmediateExit = true;
            _isExitPending = false;
            if (kvm.Run())
            {
                HandleExit(page);
            }
        }

        ClearImmediateExit(page);
    }

    private void HandleExit(KvmRunPage page)
    {
        Volatile.Write(ref _exits, _exits + 1);
        _isExitPending = false;
        switch (page.ExitReason)
        {
            case KvmConstants.ExitMmio:
                _isExitPending = true;
                if (page.MmioIsWrite)
                {
                    _environment.Bus.Write(this, page.MmioAddress, page.MmioData);
                }
                else
                {
                    _environment.Bus.Read(this, page.MmioAddress, page.MmioData);
                }

                break;
            case KvmConstants.ExitIo when _environment.Guest.Ports is { } ports:
                _isExitPending = true;
                AccessPorts(page, ports);
                break;
            case KvmConstants.ExitIntr:
                break;
            case KvmConstants.ExitShutdown:
                _environment.Guest.OnTripleFault();
                break;
            case KvmConstants.ExitInternalError when page.InternalSuberror == KvmConstants.InternalErrorEmulation:
                KvmRegs regs = default;
                _kvm!.Get(ref regs);
                _environment.Guest.OnEmulationFailure(this, in regs);
                break;
            default:
                _control.End(FailureOf(page, Index));
                break;
        }
    }

    private void AccessPorts(KvmRunPage page, MmioBus ports)
    {
        int size = page.IoSize;
        for (Span<byte> data = page.IoData; size > 0 && data.Length >= size; data = data[size..])
        {
            if (page.IoIsWrite)
            {
                ports.Write(this, page.IoPort, data[..size]);
            }
            else
            {
                ports.Read(this, page.IoPort, data[..size]);
            }
        }
    }

    /// <summary>How a machine ends one of whose vCPUs cannot go on.</summary>
    /// <param name="page">Why KVM has left the guest.</param>
    /// <param name="index">The number of the vCPU.</param>
    internal static MachineExit.Failed FailureOf(KvmRunPage page, int index) => new(new HypervisorException(page.ExitReason switch
    {
        KvmConstants.ExitInternalError => string.Create(
            CultureInfo.InvariantCulture,
            $"KVM reports an internal error of vCPU {index}, suberror {page.InternalSuberror}."),
        KvmConstants.ExitFailEntry => string.Create(
            CultureInfo.InvariantCulture,
            $"The CPU refused to enter the guest on vCPU {index}, hardware reason 0x{page.FailEntryReason:x}."),
        uint reason => string.Create(CultureInfo.InvariantCulture, $"vCPU {index} left the guest for the unexpected reason {reason}."),
    }));

    private void DisposeTimer()
    {
        if (_timer.IsValueCreated)
        {
            _timer.Value.Dispose();
        }
    }
}
