using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Kvm.Devices;

namespace Unikraft.Platform.Kvm.Vcpus;

/// <summary>
/// Decides, for all vCPUs of a machine together, whether they run: holds, cuts, sleeps and the end.
/// </summary>
/// <remarks>
/// One lock, the gate, guards everything here and is never held across a KVM call or the work of a cut. A vCPU thread takes
/// it only after its attention flag was raised, so that an exit of the guest costs no lock. The kick is free of races by its order: under the
/// gate the flag is raised, then <c>immediate_exit</c> is set, then the signal is sent; the thread clears <c>immediate_exit</c> before it
/// looks at the flag.
/// </remarks>
internal sealed class RunControl : IMachineControl
{
    /// <summary>How long a vCPU waits for a cut without going to sleep: waking it again would take as long as a cut of few pages.</summary>
    private static readonly TimeSpan s_spinning = TimeSpan.FromMicroseconds(200);

    private readonly object _gate = new();
    private readonly TaskCompletionSource<MachineExit> _exited = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly TaskCompletionSource _ready = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly List<TaskCompletionSource> _parkWaiters = [];
    private readonly GuestClock _clock;
    private readonly Action<uint> _publishEvents;
    private readonly Action _ended;
    private Vcpu[] _vcpus = [];
    private MachineExit? _exit;
    private Cut? _cut;
    private bool _isAppBeingKilled;
    private uint _events;

    /// <summary>The vCPU that the platform owes an answer, and what it has asked for.</summary>
    private (Vcpu Vcpu, GuestCall Call)? _request;

    /// <summary>The reasons to stand still: the pauses, a cut, and that the machine has not been started.</summary>
    private int _holds = 1;
    private int _pauses;
    private int _parked;
    private int _readied;
    private int _finished;

    /// <param name="clock">The clock that sleeps are measured by.</param>
    /// <param name="publishEvents">Tells the guest which events are pending. Called under the gate, never after the end.</param>
    /// <param name="ended">Called when the last vCPU is closed, before <see cref="Exited"/> completes.</param>
    internal RunControl(GuestClock clock, Action<uint> publishEvents, Action ended)
    {
        _clock = clock;
        _publishEvents = publishEvents;
        _ended = ended;
    }

    internal Task<MachineExit> Exited => _exited.Task;

    /// <summary>Completes when all vCPUs have their first state, or the machine has ended; fails when a vCPU cannot be brought into it.</summary>
    internal Task Ready => _ready.Task;

    /// <summary>Names the vCPUs, before the first of them runs.</summary>
    internal void SetVcpus(Vcpu[] vcpus) => _vcpus = vcpus;

    /// <summary>Lets a new machine run. To be called once.</summary>
    internal void Start()
    {
        lock (_gate)
        {
            ReleaseHold();
        }
    }

    /// <summary>Adds a pause.</summary>
    internal void Pause()
    {
        lock (_gate)
        {
            _pauses++;
            _holds++;
            KickAll();
        }
    }

    /// <summary>Takes a pause away, and nothing but a pause.</summary>
    internal void Resume()
    {
        lock (_gate)
        {
            if (_pauses == 0)
            {
                throw new InvalidOperationException("The machine is not paused.");
            }

            _pauses--;
            ReleaseHold();
        }
    }

    /// <summary>Completes when all vCPUs stand still, or the machine has ended.</summary>
    internal Task WhenParked()
    {
        lock (_gate)
        {
            if (_exit is not null || _parked == _vcpus.Length)
            {
                return Task.CompletedTask;
            }

            TaskCompletionSource waiter = new(TaskCreationOptions.RunContinuationsAsynchronously);
            _parkWaiters.Add(waiter);
            return waiter.Task;
        }
    }

    /// <summary>Asks for a cut. There is at most one at a time.</summary>
    internal void Request(Cut cut)
    {
        lock (_gate)
        {
            if (_exit is { } exit)
            {
                cut.Fail(new MachineExitedException(exit));
                return;
            }

            if (_isAppBeingKilled)
            {
                // The interrupt that kills is in flight somewhere between KVM and the stub: a clone would take it too.
                cut.Fail(new HypervisorException("The app of the machine is being killed: no snapshot is taken of it any more."));
                return;
            }

            cut.RequestedAt = _clock.TimeProvider.GetTimestamp();
            _cut = cut;
            _holds++;
            KickAll();
        }
    }

    /// <summary>Makes a vCPU take a non-maskable interrupt, also when it sleeps.</summary>
    internal void RequestNmi(int vcpu)
    {
        lock (_gate)
        {
            _isAppBeingKilled = true;
            _vcpus[vcpu].RequestNmi();
            Kick(_vcpus[vcpu]);
            Monitor.PulseAll(_gate);
        }
    }

    public void End(MachineExit exit)
    {
        lock (_gate)
        {
            if (_exit is not null)
            {
                return;
            }

            _exit = exit;
            _ready.TrySetResult();
            KickAll();
            foreach (TaskCompletionSource waiter in _parkWaiters)
            {
                waiter.SetResult();
            }

            _parkWaiters.Clear();
            // A cut that is being worked on completes by itself; one that is still waiting for a vCPU never will.
            if (_cut is { } cut && cut.Saved < _vcpus.Length)
            {
                _cut = null;
                cut.Fail(new MachineExitedException(exit));
            }
        }
    }

    public void BeginWait(int vcpu, ulong deadline, uint mask) => _vcpus[vcpu].Wait = new VcpuWait(deadline, mask);

    public bool BeginRequest(int vcpu, GuestCall call, ulong address)
    {
        lock (_gate)
        {
            if (_request is not null)
            {
                return false;
            }

            _request = (_vcpus[vcpu], call);
            _vcpus[vcpu].Wait = VcpuWait.ForRequest(call, address);
            return true;
        }
    }

    /// <summary>Lets the vCPU that waits for an answer go on with it.</summary>
    /// <param name="answer">The answer.</param>
    /// <param name="onlyTo">The call that it answers; any when <see langword="null"/>.</param>
    /// <exception cref="InvalidOperationException">No vCPU waits for such an answer.</exception>
    internal void Answer(RequestAnswer answer, GuestCall? onlyTo)
    {
        lock (_gate)
        {
            if (_exit is not null)
            {
                return;
            }

            if (_request is not { } request || (onlyTo ?? request.Call) != request.Call)
            {
                throw new InvalidOperationException("The guest has not asked for this.");
            }

            _request = null;
            request.Vcpu.Answer = answer;
            Monitor.PulseAll(_gate);
        }
    }

    public void Wake(int vcpu)
    {
        lock (_gate)
        {
            _vcpus[vcpu].IsWakePending = true;
            Monitor.PulseAll(_gate);
        }
    }

    public void Raise(uint events) => ChangeEvents(set: events, clear: 0);

    public void Lower(uint events) => ChangeEvents(set: 0, clear: events);

    public void Follow(uint events, Func<bool> isPending)
    {
        lock (_gate)
        {
            bool set = isPending();
            ChangeEvents(set ? events : 0, events);
        }
    }

    /// <summary>Lets sleeping vCPUs look at the clock.</summary>
    internal void OnTimer()
    {
        lock (_gate)
        {
            Monitor.PulseAll(_gate);
        }
    }

    /// <summary>From now on the vCPU can be kicked.</summary>
    internal void OnReady(Vcpu vcpu, VcpuKick kick)
    {
        lock (_gate)
        {
            vcpu.Kick = kick;
            if (++_readied == _vcpus.Length)
            {
                _ready.TrySetResult();
            }
        }
    }

    /// <summary>A vCPU cannot be brought into its first state.</summary>
    internal void OnUnusable(HypervisorException error)
    {
        if (_ready.TrySetException(error))
        {
            // Nobody may ever start the machine.
            _ = _ready.Task.Exception;
        }

        End(new MachineExit.Failed(error));
    }

    /// <summary>The vCPU is about to be closed and its thread to end, whose number may then be given to another one.</summary>
    internal void OnUnkickable(Vcpu vcpu)
    {
        lock (_gate)
        {
            vcpu.Kick = null;
        }
    }

    /// <summary>A vCPU is closed. The last one ends the machine for good.</summary>
    internal void OnFinished()
    {
        bool last;
        lock (_gate)
        {
            last = ++_finished == _vcpus.Length;
        }

        if (last)
        {
            _ended();
            _exited.SetResult(_exit!);
        }
    }

    /// <summary>Answers a raised attention flag: stands still as long as there is a reason to.</summary>
    /// <returns>False when the machine has ended.</returns>
    internal bool Attend(Vcpu vcpu)
    {
        bool goesOn;
        lock (_gate)
        {
            vcpu.NeedsAttention = false;
            if (_exit is null && _holds > 0)
            {
                Park(vcpu);
            }

            goesOn = _exit is null;
        }

        // As late as can be: what releasing the others cost is part of the pause.
        vcpu.LeaveCut();
        return goesOn;
    }

    /// <summary>Sleeps until the wait of a vCPU is over or it needs attention.</summary>
    /// <param name="vcpu">The vCPU.</param>
    /// <param name="events">The events that ended the wait; 0 when the deadline did.</param>
    /// <param name="answer">The answer that ended it, when it was a request.</param>
    /// <returns>Whether the wait is over.</returns>
    internal bool Sleep(Vcpu vcpu, out uint events, out RequestAnswer? answer)
    {
        VcpuWait wait = vcpu.Wait!.Value;
        lock (_gate)
        {
            while (true)
            {
                answer = vcpu.Answer;
                events = (_events | (vcpu.IsWakePending ? GuestEvents.Wake : 0)) & wait.Mask;
                if (vcpu.NeedsAttention)
                {
                    return false;
                }

                ulong now = _clock.Monotonic;
                if (events != 0 || answer is not null || now >= wait.Deadline)
                {
                    vcpu.IsWakePending &= (events & GuestEvents.Wake) == 0;
                    vcpu.Wait = null;
                    vcpu.Answer = null;
                    vcpu.DisarmTimer();
                    return true;
                }

                if (wait.Deadline != ulong.MaxValue)
                {
                    vcpu.ArmTimer(wait.Deadline - now);
                }

                WaitForPulse(vcpu);
            }
        }
    }

    private void Park(Vcpu vcpu)
    {
        _parked++;
        if (_parked == _vcpus.Length)
        {
            foreach (TaskCompletionSource waiter in _parkWaiters)
            {
                waiter.SetResult();
            }

            _parkWaiters.Clear();
        }

        Cut? awaited = null;
        while (_exit is null && _holds > 0)
        {
            if (_cut is { } cut && vcpu.LastCut != cut)
            {
                Serve(cut, vcpu);
            }
            else if (_cut is { } other && other != awaited && _vcpus.Length <= Environment.ProcessorCount)
            {
                awaited = other;
                AwaitBriefly(other);
            }
            else
            {
                if (_cut is null)
                {
                    vcpu.LeaveCut();
                }

                WaitForPulse(vcpu);
            }
        }

        _parked--;
    }

    /// <summary>Stores the state of a vCPU; the last one does the work of the cut and releases all.</summary>
    private void Serve(Cut cut, Vcpu vcpu)
    {
        Monitor.Exit(_gate);
        try
        {
            vcpu.Enter(cut);
        }
        finally
        {
            // Also on the way out with an error, which a gate that is not held would replace by its own.
            Monitor.Enter(_gate);
        }

        if (_cut != cut || ++cut.Saved < _vcpus.Length)
        {
            return;
        }

        // Not before: a vCPU that still ran may have woken one that had stored its state already.
        foreach (Vcpu parked in _vcpus)
        {
            cut.StateOf(parked.Index).IsWakePending = parked.IsWakePending;
        }

        // The hold of the cut keeps all vCPUs where they are while the gate is open.
        Monitor.Exit(_gate);
        cut.Execute();
        Monitor.Enter(_gate);
        _cut = null;
        ReleaseHold();
        cut.Release();
        cut.Complete();
    }

    private void AwaitBriefly(Cut cut)
    {
        Monitor.Exit(_gate);
        try
        {
            long start = _clock.TimeProvider.GetTimestamp();
            while (!cut.IsOver && _clock.TimeProvider.GetElapsedTime(start) < s_spinning)
            {
                // The one that is waited for may be waiting for this very processor.
                Thread.Yield();
            }
        }
        finally
        {
            // Also on the way out with an error of the host's clock, as in Serve.
            Monitor.Enter(_gate);
        }
    }

    private void WaitForPulse(Vcpu vcpu)
    {
        vcpu.IsAtGate = true;
        try
        {
            Monitor.Wait(_gate);
        }
        finally
        {
            vcpu.IsAtGate = false;
        }
    }

    private void ReleaseHold()
    {
        _holds--;
        Monitor.PulseAll(_gate);
    }

    private void ChangeEvents(uint set, uint clear)
    {
        lock (_gate)
        {
            if (_exit is null)
            {
                _events = _events & ~clear | set;
                _publishEvents(_events);
                Monitor.PulseAll(_gate);
            }
        }
    }

    private void KickAll()
    {
        foreach (Vcpu vcpu in _vcpus)
        {
            Kick(vcpu);
        }

        Monitor.PulseAll(_gate);
    }

    private static void Kick(Vcpu vcpu)
    {
        vcpu.NeedsAttention = true;

        // One that waits at the gate sees the flag when it is pulsed; a signal would wake it only to wait for the gate again.
        if (!vcpu.IsAtGate)
        {
            vcpu.Kick?.Send();
        }
    }
}
