namespace Unikraft.Platform.Instances;

/// <summary>What is remembered of the last run of an instance.</summary>
internal sealed record PastRun(
    DateTimeOffset StartedAt,
    DateTimeOffset StoppedAt,
    TimeSpan Uptime,
    TimeSpan? BootTime,
    TimeSpan CpuTime,
    StopOutcome Outcome)
{
    public static PastRun Of(InstanceRun run, StopOutcome outcome, TimeSpan cpuTime, TimeProvider time) =>
        new(run.StartedAt, time.GetUtcNow(), time.GetElapsedTime(run.StartTimestamp), run.BootTime, cpuTime, outcome);
}
