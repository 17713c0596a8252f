namespace Unikraft.Platform;

/// <summary>
/// Begins what outlives the call that has caused it: without the context of the caller, whose trace it is no part of, and whose data it would keep in memory.
/// </summary>
internal static class Detached
{
    /// <summary>Makes a timer whose callback has no context but its own.</summary>
    public static ITimer CreateDetachedTimer(this TimeProvider time, TimerCallback callback, object? state, TimeSpan dueTime, TimeSpan period)
    {
        using (ExecutionContext.SuppressFlow())
        {
            return time.CreateTimer(callback, state, dueTime, period);
        }
    }

    /// <summary>Begins some work on another thread, for on that of the caller it would have his context until it first waits.</summary>
    public static Task Begin(Func<Task> work)
    {
        using (ExecutionContext.SuppressFlow())
        {
            return Task.Run(work, CancellationToken.None);
        }
    }
}
