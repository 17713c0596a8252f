namespace Unikraft.Platform.Kvm.Devices;

/// <summary>The clocks of a guest, in nanoseconds.</summary>
/// <param name="timeProvider">The host's clock.</param>
/// <param name="start">Where the monotonic clock begins: 0 at boot, its value at the cut in a restored machine.</param>
internal sealed class GuestClock(TimeProvider timeProvider, ulong start)
{
    private readonly long _startTimestamp = timeProvider.GetTimestamp();

    internal TimeProvider TimeProvider { get; } = timeProvider;

    /// <summary>Counts from boot and never goes back, not in a clone either.</summary>
    internal ulong Monotonic => start + (ulong)(TimeProvider.GetElapsedTime(_startTimestamp).Ticks * TimeSpan.NanosecondsPerTick);

    /// <summary>Since 1970.</summary>
    internal ulong WallClock =>
        (ulong)((TimeProvider.GetUtcNow() - DateTimeOffset.UnixEpoch).Ticks * TimeSpan.NanosecondsPerTick);
}
