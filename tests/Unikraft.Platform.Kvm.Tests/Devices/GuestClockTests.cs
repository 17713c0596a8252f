using Unikraft.Platform.Kvm.Devices;
using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Kvm.Tests.Devices;

public sealed class GuestClockTests
{
    [Fact]
    public void It_counts_from_boot_and_tells_the_time_of_the_wall()
    {
        ManualTimeProvider time = new(new DateTimeOffset(2026, 1, 2, 3, 4, 5, TimeSpan.Zero));
        time.Advance(TimeSpan.FromHours(1));
        GuestClock clock = new(time, 0);

        Assert.Equal(0UL, clock.Monotonic);
        time.Advance(TimeSpan.FromTicks(12_345));
        Assert.Equal(1_234_500UL, clock.Monotonic);
        Assert.Equal((ulong)(time.GetUtcNow() - DateTimeOffset.UnixEpoch).Ticks * 100, clock.WallClock);
        Assert.Same(time, clock.TimeProvider);
    }

    [Fact]
    public void In_a_clone_it_goes_on_where_it_was()
    {
        ManualTimeProvider time = new();
        time.Advance(TimeSpan.FromDays(400));
        GuestClock clock = new(time, 5_000_000_000);

        Assert.Equal(5_000_000_000UL, clock.Monotonic);
        time.Advance(TimeSpan.FromSeconds(1));
        Assert.Equal(6_000_000_000UL, clock.Monotonic);
    }
}
