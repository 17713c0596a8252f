namespace Unikraft.Platform;

/// <summary>Which durations callers may give.</summary>
internal static class Durations
{
    private static readonly TimeSpan MaxGracePeriod = TimeSpan.FromHours(24);

    /// <summary>The longest that the platform's own maximum may be.</summary>
    public static readonly TimeSpan MaxDrainTimeout = TimeSpan.FromHours(24);

    private static readonly TimeSpan MaxCooldown = TimeSpan.FromHours(24);

    private static readonly TimeSpan MaxAutokill = TimeSpan.FromDays(3650);

    // What a timer can hold.
    private static readonly TimeSpan MaxTimeout = TimeSpan.FromMilliseconds(uint.MaxValue - 1);

    public static bool IsGracePeriod(TimeSpan period) =>
        period == Timeout.InfiniteTimeSpan || (period >= TimeSpan.Zero && period <= MaxGracePeriod);

    public static void RequireGracePeriod(TimeSpan? period)
    {
        if (period is { } given && !IsGracePeriod(given))
        {
            throw new InvalidRequestException($"The grace period {given} is out of range: 0 to 24 hours, or Timeout.InfiniteTimeSpan.");
        }
    }

    /// <summary>For how long to drain: not at all, or up to the maximum.</summary>
    public static TimeSpan RequireDrainTimeout(TimeSpan? timeout, TimeSpan max) => timeout switch
    {
        null => TimeSpan.Zero,
        { } given when given == Timeout.InfiniteTimeSpan => max,
        { } given when given >= TimeSpan.Zero && given <= max => given,
        _ => throw new InvalidRequestException($"The drain timeout {timeout} is out of range: 0 to {max}, or Timeout.InfiniteTimeSpan for that maximum."),
    };

    public static void RequireCooldown(TimeSpan? time)
    {
        if (time < TimeSpan.Zero || time > MaxCooldown)
        {
            throw new InvalidRequestException($"The cooldown time {time} is out of range: 0 to 24 hours.");
        }
    }

    /// <summary>How long a creation waits: what was asked for, or the deprecated field, which is rounded up to the next full second.</summary>
    public static TimeSpan? WaitTimeoutOf(CreateInstanceRequest request) => (request.WaitTimeout, request.WaitTimeoutMs) switch
    {
        ({ } timeout, _) => ToWait(timeout),
        (_, null or 0) => null,
        (_, -1) => Timeout.InfiniteTimeSpan,
        (_, < 0 or > int.MaxValue) => throw new InvalidRequestException($"'wait_timeout_ms' is {request.WaitTimeoutMs}; allowed is -1 to {int.MaxValue}"),
        (_, { } milliseconds) => TimeSpan.FromSeconds(Math.DivRem(milliseconds + 999, 1000).Quotient),
    };

    /// <summary>How long something that can be waited for is waited for: not at all when that is 0, as the public API has it.</summary>
    public static TimeSpan? ToWait(TimeSpan? timeout) => timeout == TimeSpan.Zero ? null : timeout;

    public static bool IsPauseBudget(TimeSpan budget) => budget == Timeout.InfiniteTimeSpan || budget >= SnapshotOptions.MinPauseBudget;

    public static void RequirePauseBudget(TimeSpan? budget)
    {
        if (budget is { } given && !IsPauseBudget(given))
        {
            throw new InvalidRequestException($"The pause budget {given} is out of range: 1 ms or more, or Timeout.InfiniteTimeSpan.");
        }
    }

    public static void RequireAutokill(TimeSpan? time)
    {
        if (time is { } given && given != TimeSpan.Zero && (given < TimeSpan.FromMilliseconds(1) || given > MaxAutokill))
        {
            throw new InvalidRequestException($"The autokill time {given} is out of range: 1 ms to 3650 days, or 0 for never.");
        }
    }

    /// <summary>What to set a timer to, so that it does not fire too early, nor is given more than it can hold.</summary>
    public static TimeSpan ForTimer(TimeSpan left) =>
        TimeSpan.FromMilliseconds(Math.Ceiling(Math.Clamp(left.TotalMilliseconds, 0, MaxTimeout.TotalMilliseconds)));

    public static void RequireTimeout(TimeSpan? timeout)
    {
        if (timeout is { } given && given != Timeout.InfiniteTimeSpan && (given < TimeSpan.Zero || given > MaxTimeout))
        {
            throw new InvalidRequestException($"The timeout {given} is out of range: 0 to 49 days, or Timeout.InfiniteTimeSpan.");
        }
    }
}
