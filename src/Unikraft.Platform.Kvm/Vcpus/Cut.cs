using Unikraft.Platform.Kvm.Interop;

namespace Unikraft.Platform.Kvm.Vcpus;

/// <summary>
/// One moment at which all vCPUs stand still and their state is taken. The work is done on the thread of the vCPU that stops last, so
/// that no other thread has to be woken while the guest waits.
/// </summary>
/// <param name="states">Where the state of each vCPU goes.</param>
/// <param name="work">What else is to be done in the moment. Must not block and should not allocate.</param>
internal sealed class Cut(VcpuState[] states, Action work)
{
    private const int Glances = 30;

    /// <summary>With what the host's timers add, about 70 us.</summary>
    private static readonly TimeSpan s_glance = TimeSpan.FromMicroseconds(20);

    private readonly TaskCompletionSource _completion = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private Exception? _error;
    private int _standing = states.Length;
    private long _resumedAt;
    private volatile bool _isOver;

    /// <summary>When the vCPUs were asked to stop, as a timestamp.</summary>
    internal long RequestedAt { get; set; }

    /// <summary>Whether nobody stands still for it any more.</summary>
    internal bool IsOver => _isOver;

    /// <summary>How many vCPUs have stored their state.</summary>
    internal int Saved { get; set; }

    /// <summary>
    /// Waits for it, at first by looking now and then, for as long as most cuts take: to wake somebody would cost the vCPU that ends the cut, whose processor
    /// the one that is woken often gets.
    /// </summary>
    internal Task WaitAsync()
    {
        for (int i = 0; i < Glances && !_completion.Task.IsCompleted; i++)
        {
            SleepDuration.Sleep(s_glance);
        }

        return _completion.Task;
    }

    /// <summary>Waits for the last vCPU to go on, which is a matter of microseconds once the cut is complete.</summary>
    /// <returns>When it did, as a timestamp.</returns>
    internal long WaitUntilResumed()
    {
        long resumedAt;
        SpinWait spin = default;
        while ((resumedAt = Volatile.Read(ref _resumedAt)) == 0)
        {
            spin.SpinOnce();
        }

        return resumedAt;
    }

    /// <summary>Notes that one vCPU goes on, or that something else than the cut keeps it from it.</summary>
    internal void OnResumed(long timestamp)
    {
        if (Interlocked.Decrement(ref _standing) == 0)
        {
            Volatile.Write(ref _resumedAt, timestamp);
        }
    }

    internal VcpuState StateOf(int vcpu) => states[vcpu];

    internal void Execute()
    {
        try
        {
            work();
        }
        catch (Exception error)
        {
            // Reported through Completion: the vCPU thread must release the guest whatever happens.
            _error = error;
        }
    }

    /// <summary>Lets go of those who wait for it without sleeping.</summary>
    internal void Release() => _isOver = true;

    internal void Complete()
    {
        if (_error is { } error)
        {
            _completion.SetException(error);
        }
        else
        {
            _completion.SetResult();
        }
    }

    internal void Fail(Exception error)
    {
        Release();
        _completion.SetException(error);
    }
}
