using System.Security.Cryptography;
using System.Text;
using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Volumes;

namespace Unikraft.Platform.InMemory;

/// <summary>A machine that steps a scripted guest on the thread pool.</summary>
/// <remarks>
/// While there is something to do, one <em>turn</em> is queued or running, and only that one steps the guest. What may change the guest's mind
/// (input, time, a stop, a kill) notes itself under the lock and makes sure that there is a turn; a turn ends under the lock when there is
/// nothing to do, so nothing is missed.
/// </remarks>
internal sealed class InMemoryMachine : IVirtualMachine, IThreadPoolWorkItem
{
    private const int StepsPerTurn = 256;
    private const int InputCapacity = 64 << 10;
    private const int LineSize = 1024;
    private const int GenerationIdSize = 16;
    private const int ShutdownLevel = 2;

    private readonly InMemoryHypervisor _hypervisor;
    private readonly IMachineMonitor _monitor;
    private readonly ScriptedGuest _guest;
    private readonly ScriptedGuestContext _context;
    private readonly TimeSpan _monotonicStart;
    private readonly int _depth;
    private readonly TaskCompletionSource<MachineExit> _exited = new(TaskCreationOptions.RunContinuationsAsynchronously);

    private readonly Lock _lock = new();
    private readonly Queue<byte> _input;
    private readonly List<byte> _line;
    private readonly List<TaskCompletionSource> _pausing = [];
    private TaskCompletionSource _room = NewSignal();
    private ITimer? _timer;
    private long? _startedAt;
    private bool _hasTurn;
    private int _pauses;
    private bool _isBooted;
    private bool _isHanging;
    private bool _isWakePending;
    private bool _isStopRequested;
    private bool _isAppKilled;
    private bool _isKilled;
    private bool _isCapturing;
    private bool _isDisposed;
    private GuestStep.Sleep? _sleep;
    private GuestRequest? _request;
    private RequestOutcome _requestOutcome;
    private int _initLevel;
    private bool _isShuttingDown;
    private volatile bool _hasReachedMain;

    public InMemoryMachine(
        InMemoryHypervisor hypervisor,
        MachineState state,
        Guid uuid,
        IMachineMonitor monitor,
        IReadOnlyList<MachineDisk> disks)
    {
        Disks = disks;
        _hypervisor = hypervisor;
        _monitor = monitor;
        _guest = state.Guest;
        _monotonicStart = state.Monotonic;
        _depth = state.Depth;
        _isBooted = state.IsBooted;
        _hasReachedMain = state.HasReachedMain;
        _initLevel = state.InitLevel;
        _isShuttingDown = state.IsShuttingDown;
        _sleep = state.Sleep;
        _requestOutcome = state.Request switch
        {
            GuestRequest.Template => new RequestOutcome(Errno: 0),
            GuestRequest.Fork => new RequestOutcome(Errno: 0, IsForkChild: true, uuid),
            _ => state.RequestOutcome,
        };
        _isHanging = state.IsHanging;
        _isWakePending = state.IsWakePending;
        _input = new Queue<byte>(state.Input);
        _line = [.. state.Line];
        ExitCode = state.ExitCode;
        Configuration = state.Configuration;
        Uuid = uuid;
        Args = [state.Configuration.Name, .. state.Configuration.Args];
        GenerationId = RandomNumberGenerator.GetBytes(GenerationIdSize);
        _context = new ScriptedGuestContext(this);
    }

    public MachineConfiguration Configuration { get; }

    public Guid Uuid { get; }

    public IReadOnlyList<string> Args { get; }

    public ReadOnlyMemory<byte> GenerationId { get; }

    public IReadOnlyList<MachineDisk> Disks { get; }

    public int? ExitCode { get; set; }

    public Task<MachineExit> Exited => _exited.Task;

    public bool HasReachedMain => _hasReachedMain;

    public RequestOutcome RequestOutcome
    {
        get
        {
            lock (_lock)
            {
                return _requestOutcome;
            }
        }
    }

    public DateTimeOffset UtcNow => _hypervisor.TimeProvider.GetUtcNow();

    public TimeSpan Monotonic
    {
        get
        {
            lock (_lock)
            {
                return MonotonicLocked();
            }
        }
    }

    public GuestEvents PendingEvents
    {
        get
        {
            lock (_lock)
            {
                return Pending();
            }
        }
    }

    public ValueTask StartAsync(CancellationToken cancellationToken = default)
    {
        cancellationToken.ThrowIfCancellationRequested();
        lock (_lock)
        {
            ObjectDisposedException.ThrowIf(_isDisposed, typeof(IVirtualMachine));
            if (_startedAt is not null)
            {
                throw new InvalidOperationException("The machine was started before.");
            }

            _startedAt = _hypervisor.TimeProvider.GetTimestamp();
            TakeTurn();
        }

        return ValueTask.CompletedTask;
    }

    public async ValueTask PauseAsync(CancellationToken cancellationToken = default)
    {
        cancellationToken.ThrowIfCancellationRequested();
        TaskCompletionSource paused = NewSignal();
        lock (_lock)
        {
            _pauses++;
            if (!_hasTurn)
            {
                return;
            }

            _pausing.Add(paused);
        }

        try
        {
            await paused.Task.WaitAsync(cancellationToken).ConfigureAwait(false);
        }
        catch (OperationCanceledException)
        {
            lock (_lock)
            {
                _pausing.Remove(paused);
            }

            Resume();
            throw;
        }
    }

    public void Resume()
    {
        lock (_lock)
        {
            if (_pauses == 0)
            {
                throw new InvalidOperationException("The machine is not paused.");
            }

            if (--_pauses == 0)
            {
                TakeTurn();
            }
        }
    }

    public async ValueTask<IMachineSnapshot> CaptureAsync(CaptureOptions options, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(options);
        cancellationToken.ThrowIfCancellationRequested();
        lock (_lock)
        {
            if (_startedAt is null)
            {
                throw new InvalidOperationException("The machine has not been started.");
            }

            ThrowIfExited();
            if (_isCapturing)
            {
                throw new InvalidOperationException("Another snapshot of the machine is being taken.");
            }

            _isCapturing = true;
        }

        try
        {
            // A machine that ends need not be waited for.
            using var either = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
            Task latency = _hypervisor.DelayAsync(_hypervisor.Options.CaptureLatency, either.Token);
            await Task.WhenAny(latency, _exited.Task).ConfigureAwait(false);
            await either.CancelAsync().ConfigureAwait(false);
            cancellationToken.ThrowIfCancellationRequested();
            InMemoryHypervisor.ThrowIf(_hypervisor.Options.CaptureFailure?.Invoke(Uuid));

            await PauseAsync(cancellationToken).ConfigureAwait(false);
            long pausedAt = _hypervisor.TimeProvider.GetTimestamp();
            try
            {
                // No step runs, so no request of the guest is under way.
                MachineState state = await CutAsync(options.Disks, cancellationToken).ConfigureAwait(false);
                state = state with { Guest = _guest.Clone() };
                _hypervisor.OnSnapshotTaken();
                return new InMemorySnapshot(_hypervisor, state, state.Depth, _hypervisor.TimeProvider.GetElapsedTime(pausedAt));
            }
            finally
            {
                Resume();
            }
        }
        finally
        {
            lock (_lock)
            {
                _isCapturing = false;
            }
        }
    }

    public void RefuseRequest(GuestRequestRefusal refusal) => Answer(new RequestOutcome((int)refusal), onlyTo: null);

    public void CompleteFork(Guid child) =>
        Answer(new RequestOutcome(Errno: 0, IsForkChild: false, child), GuestRequest.Fork);

    public void RequestStop()
    {
        lock (_lock)
        {
            _isStopRequested = true;
            TakeTurn();
        }
    }

    public void KillApp()
    {
        lock (_lock)
        {
            _isAppKilled = true;
            TakeTurn();
        }
    }

    public void Kill()
    {
        lock (_lock)
        {
            _isKilled = true;
            // A step that runs is let to its end, so that nothing is heard of the machine after it has ended.
            if (!_hasTurn)
            {
                End(new MachineExit.Killed());
            }
        }
    }

    public async ValueTask<int> WriteConsoleAsync(ReadOnlyMemory<byte> input, CancellationToken cancellationToken = default)
    {
        cancellationToken.ThrowIfCancellationRequested();
        while (true)
        {
            Task room;
            lock (_lock)
            {
                if (_exited.Task.IsCompleted)
                {
                    return 0;
                }

                int taken = Math.Min(input.Length, InputCapacity - _input.Count);
                if (taken > 0 || input.IsEmpty)
                {
                    foreach (byte value in input.Span[..taken])
                    {
                        _input.Enqueue(value);
                    }

                    TakeTurn();
                    return taken;
                }

                room = _room.Task;
            }

            await room.WaitAsync(cancellationToken).ConfigureAwait(false);
        }
    }

    public TFeature? GetFeature<TFeature>()
        where TFeature : class => null;

    public async ValueTask DisposeAsync()
    {
        lock (_lock)
        {
            if (!_isDisposed)
            {
                _isDisposed = true;
                _hypervisor.OnMachineDisposed();
            }
        }

        Kill();
        await _exited.Task.ConfigureAwait(false);
    }

    void IThreadPoolWorkItem.Execute()
    {
        for (int steps = 0; steps < StepsPerTurn; steps++)
        {
            lock (_lock)
            {
                if (!MayStep())
                {
                    _hasTurn = false;
                    foreach (TaskCompletionSource paused in _pausing)
                    {
                        paused.TrySetResult();
                    }

                    _pausing.Clear();
                    return;
                }
            }

            GuestStep next = Step();
            lock (_lock)
            {
                Apply(next);
            }

            Announce(next);
        }

        ThreadPool.UnsafeQueueUserWorkItem(this, preferLocal: false);
    }

    /// <summary>Does a request to a disk.</summary>
    /// <returns>0, or the Linux error number with which the guest is told that it failed.</returns>
    public int OnDisk(int slot, Func<IBlockDevice, ValueTask> request)
    {
        const int NoSuchDevice = 19;
        const int InputOutputError = 5;
        if (Disks.FirstOrDefault(disk => disk.Slot == slot) is not { } disk)
        {
            return NoSuchDevice;
        }

        try
        {
            // A step is synchronous, and the guest has nothing else to do.
            request(disk.Device).AsTask().GetAwaiter().GetResult();
            return 0;
        }
        catch (BlockDeviceException error)
        {
            if (error.Error is not (BlockDeviceError.OutOfRange or BlockDeviceError.ReadOnly))
            {
                _monitor.OnDiskFailed(disk, error);
            }

            return InputOutputError;
        }
    }

    public void SetInitLevel(int level, bool isShuttingDown)
    {
        _initLevel = level;
        _isShuttingDown = isShuttingDown;
        if (level == StopCode.AppInitLevel && !_hasReachedMain)
        {
            _hasReachedMain = true;
            _monitor.OnMainReached();
        }
    }

    public void WriteOutput(ReadOnlySpan<byte> output)
    {
        if (!output.IsEmpty)
        {
            _monitor.OnConsoleOutput(output);
        }
    }

    public int ReadInput(Span<byte> destination)
    {
        int read = 0;
        lock (_lock)
        {
            while (read < destination.Length && _input.TryDequeue(out byte value))
            {
                destination[read++] = value;
            }

            MakeRoom(read);
        }

        return read;
    }

    public string? ReadLine()
    {
        lock (_lock)
        {
            int read = 0;
            bool isComplete = false;
            while (!isComplete && _line.Count < LineSize && _input.TryDequeue(out byte value))
            {
                read++;
                isComplete = value == '\n';
                if (!isComplete)
                {
                    _line.Add(value);
                }
            }

            MakeRoom(read);
            if (!isComplete && _line.Count < LineSize)
            {
                return null;
            }

            string line = Encoding.UTF8.GetString([.. _line]);
            _line.Clear();
            return line.EndsWith('\r') ? line[..^1] : line;
        }
    }

    public void Wake()
    {
        lock (_lock)
        {
            _isWakePending = true;
            TakeTurn();
        }
    }

    private static TaskCompletionSource NewSignal() => new(TaskCreationOptions.RunContinuationsAsynchronously);

    private async ValueTask<MachineState> CutAsync(IDiskCut? disks, CancellationToken cancellationToken)
    {
        if (disks is not null)
        {
            await disks.HoldAsync(cancellationToken).ConfigureAwait(false);
        }

        try
        {
            MachineState state;
            lock (_lock)
            {
                ThrowIfExited();
                state = Save();
            }

            disks?.Cut();
            return state;
        }
        finally
        {
            disks?.Release();
        }
    }

    private GuestStep Step()
    {
        try
        {
            if (!_isBooted)
            {
                _isBooted = true;
                if (_guest.StartsAtMain)
                {
                    SetInitLevel(StopCode.AppInitLevel, isShuttingDown: false);
                }
            }

            return _guest.Step(_context);
        }
        catch (Exception error)
        {
            return new GuestStep.Failure(error);
        }
    }

    // Before the guest may go on, as its vCPU would do it: outside of the lock, because the monitor may answer at once.
    private void Announce(GuestStep step)
    {
        switch (step)
        {
            case GuestStep.Request { What: GuestRequest.Template }:
                _monitor.OnTemplateRequested();
                break;
            case GuestStep.Request { What: GuestRequest.Fork }:
                _monitor.OnForkRequested();
                break;
        }
    }

    private void Answer(RequestOutcome outcome, GuestRequest? onlyTo)
    {
        lock (_lock)
        {
            if (_exited.Task.IsCompleted)
            {
                return;
            }

            if (_request is not { } request || (onlyTo ?? request) != request)
            {
                throw new InvalidOperationException("The guest has not asked for this.");
            }

            _request = null;
            _requestOutcome = outcome;
            TakeTurn();
        }
    }

    // Under the lock, as everything below.
    private void TakeTurn()
    {
        if (!_hasTurn && _startedAt is not null && !_exited.Task.IsCompleted)
        {
            _hasTurn = true;
            ThreadPool.UnsafeQueueUserWorkItem(this, preferLocal: false);
        }
    }

    private bool MayStep()
    {
        if (_exited.Task.IsCompleted)
        {
            return false;
        }

        if (_isKilled)
        {
            End(new MachineExit.Killed());
            return false;
        }

        if (_pauses > 0)
        {
            return false;
        }

        if (_isAppKilled)
        {
            _isShuttingDown = true;
            End(new MachineExit.Crashed(StopCodeOf(MachineFaults.Killed), MachineFaults.Kill));
            return false;
        }

        return !_isHanging && _request is null && (_sleep is not { } sleep || IsAwake(sleep));
    }

    private bool IsAwake(GuestStep.Sleep sleep)
    {
        GuestEvents pending = Pending() & sleep.Events;
        TimeSpan? left = sleep.Deadline - MonotonicLocked();
        if (pending == GuestEvents.None && (left is null || left > TimeSpan.Zero))
        {
            if (left is { } due)
            {
                // Timers of the system have whole milliseconds: waking too early would only mean waking again.
                _timer ??= _hypervisor.TimeProvider.CreateDetachedTimer(
                    static machine => ((InMemoryMachine)machine!).OnTimer(),
                    this,
                    Timeout.InfiniteTimeSpan,
                    Timeout.InfiniteTimeSpan);
                _timer.Change(TimeSpan.FromMilliseconds(Math.Min(Math.Ceiling(due.TotalMilliseconds), int.MaxValue)), Timeout.InfiniteTimeSpan);
            }

            return false;
        }

        _sleep = null;
        if (pending.HasFlag(GuestEvents.Wake))
        {
            _isWakePending = false;
        }

        return true;
    }

    private void OnTimer()
    {
        lock (_lock)
        {
            TakeTurn();
        }
    }

    private void Apply(GuestStep step)
    {
        switch (step)
        {
            case GuestStep.Proceed:
                break;
            case GuestStep.Spin:
                _isHanging = true;
                break;
            case GuestStep.Request request:
                _request = request.What;
                break;
            case GuestStep.Sleep sleep:
                _sleep = sleep;
                break;
            case GuestStep.Leave leave:
                End(new MachineExit.PoweredOff(
                    leave.ExitCode,
                    new StopCode(StopCodeReason.Ok, initLevel: ShutdownLevel, isShuttingDown: true)));
                break;
            case GuestStep.Off { StopCode: null }:
                End(new MachineExit.PoweredOff(ExitCode, StopCode: null));
                break;
            case GuestStep.Off { StopCode: { } code }:
                End(new MachineExit.PoweredOff(ExitCode, StopCodeOf((code.Reason, code.Errno))));
                break;
            case GuestStep.Fault fault:
                ulong ramBytes = (ulong)Configuration.MemoryMb << 20;
                End(new MachineExit.Crashed(
                    StopCodeOf(MachineFaults.Of(fault.GuestFault, fault.IsGuardPage, ramBytes)),
                    fault.GuestFault));
                break;
            case GuestStep.Triple:
                End(new MachineExit.TripleFault(StopCodeOf(MachineFaults.TripleFault)));
                break;
            case GuestStep.Failure failure:
                End(new MachineExit.Failed(failure.Error));
                break;
            default:
                End(new MachineExit.Failed(new InvalidOperationException("The scripted guest returned no step.")));
                break;
        }
    }

    private void End(MachineExit exit)
    {
        if (_exited.TrySetResult(exit))
        {
            _timer?.Dispose();
            _room.TrySetResult();
        }
    }

    private void MakeRoom(int bytes)
    {
        if (bytes > 0)
        {
            _room.TrySetResult();
            _room = NewSignal();
        }
    }

    private MachineState Save() => new(Configuration, _guest)
    {
        IsBooted = _isBooted,
        HasReachedMain = _hasReachedMain,
        InitLevel = _initLevel,
        IsShuttingDown = _isShuttingDown,
        ExitCode = ExitCode,
        Sleep = _sleep,
        Request = _request,
        RequestOutcome = _requestOutcome,
        IsHanging = _isHanging,
        IsWakePending = _isWakePending,
        Monotonic = MonotonicLocked(),
        Input = [.. _input],
        Line = [.. _line],
        Disks = [.. Disks.Select(DiskShape.Of)],
        Depth = _depth + 1,
    };

    private StopCode StopCodeOf((StopCodeReason Reason, int Errno) why) => new(why.Reason, why.Errno, _initLevel, _isShuttingDown);

    private GuestEvents Pending() =>
        (_isStopRequested ? GuestEvents.StopRequested : GuestEvents.None)
        | (_input.Count > 0 ? GuestEvents.ConsoleInput : GuestEvents.None)
        | (_isWakePending ? GuestEvents.Wake : GuestEvents.None);

    private TimeSpan MonotonicLocked() =>
        _monotonicStart + (_startedAt is { } start ? _hypervisor.TimeProvider.GetElapsedTime(start) : TimeSpan.Zero);

    private void ThrowIfExited()
    {
        if (_exited.Task.IsCompleted)
        {
            throw new MachineExitedException(_exited.Task.Result);
        }
    }
}
