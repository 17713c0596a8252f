using Microsoft.Extensions.Options;
using Unikraft.Platform.Contracts;

namespace Unikraft.Platform.Tests;

public sealed class PlatformBuilderTests
{
    public static TheoryData<string, PlatformOptions> Refused => new()
    {
        {
            "PlatformOptions.StopGracePeriod is -00:00:01; allowed is 0 to 24 hours, or Timeout.InfiniteTimeSpan.",
            new PlatformOptions { StopGracePeriod = TimeSpan.FromSeconds(-1) }
        },
        {
            "PlatformOptions.StopGracePeriod is 1.00:00:01; allowed is 0 to 24 hours, or Timeout.InfiniteTimeSpan.",
            new PlatformOptions { StopGracePeriod = new TimeSpan(1, 0, 0, 1) }
        },
        { "PlatformOptions.LogCapacityBytes is 4095; allowed is 4096 to 1073741824.", new PlatformOptions { LogCapacityBytes = 4095 } },
        {
            "PlatformOptions.LogCapacityBytes is 1073741825; allowed is 4096 to 1073741824.",
            new PlatformOptions { LogCapacityBytes = (1 << 30) + 1 }
        },
        { "PlatformOptions.DefaultMemoryMb is 0; allowed is 1 or more.", new PlatformOptions { DefaultMemoryMb = 0 } },
        {
            "PlatformOptions.SnapshotPauseBudget is 00:00:00; allowed is 1 ms or more, or Timeout.InfiniteTimeSpan.",
            new PlatformOptions { SnapshotPauseBudget = TimeSpan.Zero }
        },
        { "PlatformOptions.MaxInstancesForForks is -1; allowed is 0 or more.", new PlatformOptions { MaxInstancesForForks = -1 } },
        { "PlatformOptions.DefaultVcpus is 0; allowed is 1 to 256.", new PlatformOptions { DefaultVcpus = 0 } },
        { "PlatformOptions.DefaultVcpus is 257; allowed is 1 to 256.", new PlatformOptions { DefaultVcpus = 257 } },
    };

    [Theory]
    [MemberData(nameof(Refused))]
    public void Options_out_of_range_are_refused_by_name(string message, PlatformOptions options) =>
        Assert.Equal([message], new PlatformOptionsValidator().Validate(name: null, options).Failures);

    [Fact]
    public void Defaults_and_extremes_are_accepted()
    {
        PlatformOptions[] accepted =
        [
            new(),
            new() { StopGracePeriod = TimeSpan.Zero, LogCapacityBytes = 4096, DefaultMemoryMb = 1, DefaultVcpus = 256 },
            new() { StopGracePeriod = Timeout.InfiniteTimeSpan, LogCapacityBytes = 1 << 30 },
            new() { StopGracePeriod = TimeSpan.FromHours(24) },
        ];
        Assert.All(accepted, options => Assert.True(new PlatformOptionsValidator().Validate(name: null, options).Succeeded));
        Assert.Equal(
            (TimeSpan.FromSeconds(5), 1 << 20, 128, 1),
            (accepted[0].StopGracePeriod, accepted[0].LogCapacityBytes, accepted[0].DefaultMemoryMb, accepted[0].DefaultVcpus));
    }

    [Fact]
    public void A_builder_without_a_backend_says_what_to_do() =>
        Assert.Equal(
            "No hypervisor was chosen. Call the extension method of a backend on the platform builder, for example UseInMemory().",
            Assert.Throws<InvalidOperationException>(() => new UnikraftPlatformBuilder().Build()).Message);

    [Fact]
    public void A_builder_with_bad_options_names_them_all()
    {
        OptionsValidationException error = Assert.Throws<OptionsValidationException>(() => new UnikraftPlatformBuilder()
            .Configure(options => options.DefaultVcpus = 0)
            .Configure(options => options.DefaultMemoryMb = 0)
            .UseInMemory()
            .Build());

        Assert.Equal(2, error.Failures.Count());
    }

    [Fact]
    public async Task The_last_backend_wins_and_each_build_makes_another_platform()
    {
        UnikraftPlatformBuilder builder = new UnikraftPlatformBuilder()
            .UseHypervisor(_ => throw new HypervisorUnavailableException("no such device"))
            .UseInMemory(options => options.MaxVcpus = 3);

        await using IUnikraftPlatform one = builder.Build();
        await using IUnikraftPlatform two = builder.Build();

        Assert.NotSame(one, two);
        Assert.Equal(("in-memory", 3), (one.Hypervisor.Name, one.Hypervisor.MaxVcpus));
        await one.DisposeAsync().AsTask().Guarded();
        Assert.Empty(two.Instances.List());
    }

    [Fact]
    public void What_a_backend_says_about_the_host_comes_through() =>
        Assert.Equal("no such device", Assert.Throws<HypervisorUnavailableException>(() => new UnikraftPlatformBuilder()
            .UseHypervisor(_ => throw new HypervisorUnavailableException("no such device"))
            .Build()).Message);

    [Fact]
    public async Task Options_are_read_once()
    {
        PlatformOptions? kept = null;
        await using TestPlatform test = new(options: options => (kept = options).DefaultMemoryMb = 77);
        kept!.DefaultMemoryMb = 5;

        Instance instance = await test.Instances.CreateAsync(TestPlatform.Request("hello") with { Autostart = false }).Guarded();

        Assert.Equal((77, 1), (instance.MemoryMb, instance.Vcpus));
    }
}
