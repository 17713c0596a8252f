using System.Diagnostics;
using Unikraft.Platform.Diagnostics;

namespace Unikraft.Platform.Instances;

/// <summary>Starts an instance again after it stopped from within, as its policy and the back-off say.</summary>
/// <remarks>Guarded by the lock of the instance.</remarks>
/// <param name="platform">The platform.</param>
/// <param name="status">The instance.</param>
/// <param name="policy">Its policy.</param>
/// <param name="start">Starts it, unless the sequence is over by then. Not called under the lock.</param>
internal sealed class RestartScheduler(
    PlatformContext platform,
    InstanceStatus status,
    RestartPolicy policy,
    Func<RestartSequence, Task> start)
{
    /// <summary>Ends the sequence, and begins its next step if a run that has ended is to be followed by another. Under the lock.</summary>
    /// <param name="run">The run, which nobody has stopped.</param>
    /// <param name="outcome">How it ended.</param>
    /// <returns>The delay before the next run, if there is to be one.</returns>
    public TimeSpan? Follow(InstanceRun run, StopOutcome outcome)
    {
        bool wanted = !run.NoRestart && !status.IsClosed && RestartBackoff.Wants(policy, outcome);
        int attempt = status.IsHealthy(run) ? 1 : (status.Restart?.Attempt ?? 0) + 1;
        Abort();
        return wanted ? Schedule(attempt, run.Trace) : null;
    }

    /// <summary>Ends the sequence. Under the lock.</summary>
    public void Abort()
    {
        status.Restart?.Timer?.Dispose();
        status.Restart = null;
    }

    // Under the lock. A restart without delay is only set off here: it begins on another thread.
    private TimeSpan Schedule(int attempt, ActivityContext? follows) => Schedule(attempt, RestartBackoff.Delay(attempt), follows);

    private TimeSpan Schedule(int attempt, TimeSpan delay, ActivityContext? follows)
    {
        RestartSequence sequence = status.Restart = new RestartSequence(attempt) { Follows = follows };
        if (delay == TimeSpan.Zero)
        {
            _ = Detached.Begin(() => RestartAsync(sequence));
        }
        else
        {
            sequence.NextAt = platform.TimeProvider.GetUtcNow() + delay;
            sequence.ScheduledAt = platform.TimeProvider.GetTimestamp();
            sequence.Delay = delay;
            sequence.Timer = platform.TimeProvider.CreateDetachedTimer(
                _ => _ = RestartAsync(sequence),
                state: null,
                delay,
                Timeout.InfiniteTimeSpan);
        }

        status.Changed?.Invoke();
        return delay;
    }

    /// <summary>Goes on with a sequence that a platform before has begun. Under the lock.</summary>
    /// <param name="attempt">Counts the restarts of the sequence.</param>
    /// <param name="delay">The time left until the next one.</param>
    public void Resume(int attempt, TimeSpan delay) => Schedule(attempt, delay, follows: null);

    private async Task RestartAsync(RestartSequence sequence)
    {
        await Task.CompletedTask.ConfigureAwait(ConfigureAwaitOptions.ForceYielding);
        using Rundown.Scope? scope = platform.Rundown.TryEnter();
        if (scope is null)
        {
            return;
        }

        try
        {
            await start(sequence).ConfigureAwait(false);
        }
        catch (Exception error)
        {
            if (IsCurrent())
            {
                platform.Logger.InstanceStartFailed(error, status.Identity.Name, status.Identity.Uuid);
            }

            lock (status.Sync)
            {
                if (status.Restart == sequence)
                {
                    sequence.Timer?.Dispose();
                    Schedule(sequence.Attempt + 1, sequence.Follows);
                }
            }
        }

        bool IsCurrent()
        {
            lock (status.Sync)
            {
                return status.Restart == sequence;
            }
        }
    }
}
