using System.Diagnostics;
using Unikraft.Platform.Checkpoints;
using Unikraft.Platform.Hypervisors;

namespace Unikraft.Platform.Instances;

/// <summary>One life of an instance, from a start to the end of its machine.</summary>
/// <remarks>Mutable members are guarded by the lock of the instance, but for what the vCPU thread sets.</remarks>
/// <param name="instance">The instance.</param>
/// <param name="before">The state that it was started from.</param>
/// <param name="configuration">What the machine is made of, unless it is restored.</param>
/// <param name="timeProvider">The clock.</param>
internal sealed class InstanceRun(
    InstanceController instance,
    InstanceState before,
    InstanceConfiguration configuration,
    TimeProvider timeProvider) : IMachineMonitor, IThreadPoolWorkItem, IDisposable
{
    private readonly CancellationTokenSource _abandoned = new();
    private long _mainTimestamp;
    private volatile bool _mainReached;

    public DateTimeOffset StartedAt { get; } = timeProvider.GetUtcNow();

    public long StartTimestamp { get; } = timeProvider.GetTimestamp();

    /// <summary>What the trace of the start is referred to by, if there is one.</summary>
    public ActivityContext? Trace { get; init; }

    /// <summary>The state that the instance was started from.</summary>
    public InstanceState Before => before;

    public InstanceConfiguration Configuration => configuration;

    /// <summary>Cancelled when a stop comes before the vCPUs run.</summary>
    public CancellationToken Abandoned => _abandoned.Token;

    /// <summary>The machine, as soon as there is one.</summary>
    public IVirtualMachine? Machine { get; set; }

    /// <summary>The machine once its vCPUs run: from then on stops go to it.</summary>
    public StopEscalation? Escalation { get; set; }

    public StopInitiator Initiator { get; set; }

    /// <summary>The grace period of a regular stop that came before the vCPUs ran.</summary>
    public TimeSpan? StopWhenStarted { get; set; }

    public bool Forced { get; set; }

    /// <summary>A manual stop rules a restart out, even one that came when the machine had just ended by itself.</summary>
    public bool NoRestart { get; set; }

    /// <summary>The stop that waits for connections to end, if one does.</summary>
    public ConnectionDrain? Drain { get; set; }

    /// <summary>The memory of a machine that is being suspended: the next start continues from there.</summary>
    public SnapshotReference? Suspension { get; set; }

    /// <summary>Whether the next connection is to start the instance.</summary>
    public bool EndsInStandby { get; set; }

    public TimeSpan? BootTime { get; set; }

    /// <summary>When the app reached its main entry point; 0 until then.</summary>
    public long? RunningSince { get; set; }

    /// <summary>Completes when the start is over, well or not.</summary>
    public TaskCompletionSource StartDone { get; } = new(TaskCreationOptions.RunContinuationsAsynchronously);

    /// <summary>Completes when the instance is stopped.</summary>
    public TaskCompletionSource Ended { get; } = new(TaskCreationOptions.RunContinuationsAsynchronously);

    /// <summary>Completes when nothing of the machine is left.</summary>
    public TaskCompletionSource TornDown { get; } = new(TaskCreationOptions.RunContinuationsAsynchronously);

    /// <summary>When main was reached, as the vCPU thread saw it.</summary>
    public long? MainTimestamp => _mainReached ? _mainTimestamp : null;

    /// <summary>Gives the start up. Runs no callback on the caller's thread, so that it may be called under a lock.</summary>
    public Task AbandonAsync() => _abandoned.CancelAsync();

    public void OnConsoleOutput(ReadOnlySpan<byte> output) => instance.Log.Append(output);

    public void OnMainReached()
    {
        _mainTimestamp = timeProvider.GetTimestamp();
        _mainReached = true;
        // The state change takes a lock and wakes waiters: neither is for the thread of a vCPU.
        ThreadPool.UnsafeQueueUserWorkItem(this, preferLocal: false);
    }

    public void OnTemplateRequested() => instance.OnTemplateRequested(this);

    public void OnForkRequested() => instance.OnForkRequested(this);

    void IThreadPoolWorkItem.Execute() => instance.OnMainReached(this);

    public void Dispose()
    {
        _abandoned.Dispose();
        Drain?.Dispose();
    }
}
