namespace Unikraft.Platform.Instances;

/// <summary>What is remembered of the last run of an instance.</summary>
internal sealed record PastRun(DateTimeOffset StartedAt, DateTimeOffset StoppedAt, TimeSpan Uptime, TimeSpan? BootTime, StopOutcome Outcome)
{
    public static PastRun Of(InstanceRun run, StopOutcome outcome, TimeProvider time) =>
        new(run.StartedAt, time.GetUtcNow(), time.GetElapsedTime(run.StartTimestamp), run.BootTime, outcome);
}
