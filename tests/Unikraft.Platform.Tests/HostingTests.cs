using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Options;
using Unikraft.Platform.Contracts;
using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Tests;

public sealed class HostingTests
{
    [Fact]
    public async Task A_host_runs_a_platform_and_stops_its_instances_when_it_shuts_down()
    {
        HostApplicationBuilder builder = Host.CreateEmptyApplicationBuilder(new HostApplicationBuilderSettings());
        ManualTimeProvider time = new();
        builder.Services.AddSingleton<TimeProvider>(time);
        builder.Services.AddUnikraftPlatform(options => options.DefaultMemoryMb = 99).UseInMemory();
        using IHost host = builder.Build();
        await host.StartAsync().Guarded();
        IInstanceManager instances = host.Services.GetRequiredService<IInstanceManager>();
        IUnikraftPlatform platform = host.Services.GetRequiredService<IUnikraftPlatform>();
        Assert.Same(platform.Instances, instances);
        Assert.Same(platform.Checkpoints, host.Services.GetRequiredService<ICheckpointStore>());
        Assert.Same(platform.Templates, host.Services.GetRequiredService<ITemplateStore>());
        Assert.Same(platform.Volumes, host.Services.GetRequiredService<IVolumeStore>());
        Instance instance = await instances
            .CreateAsync(TestPlatform.Request("counter", "--period-ms", "0") with { WaitTimeout = Timeout.InfiniteTimeSpan })
            .Guarded();
        Assert.Equal((99, time.GetUtcNow()), (instance.MemoryMb, instance.CreatedAt));

        await host.StopAsync().Guarded();

        Assert.Equal("--PAK", instances.Get(instance.Uuid).StopReason!.Value.ToMask());
        host.Dispose();
        Assert.Throws<ObjectDisposedException>(() => instances.List());
    }

    [Fact]
    public async Task Errors_of_the_options_show_when_the_host_starts()
    {
        HostApplicationBuilder builder = Host.CreateEmptyApplicationBuilder(new HostApplicationBuilderSettings());
        builder.Services.AddUnikraftPlatform(options => options.DefaultVcpus = 0).UseInMemory();
        using IHost host = builder.Build();

        OptionsValidationException error = await Assert.ThrowsAsync<OptionsValidationException>(() => host.StartAsync().Guarded());

        Assert.Contains("DefaultVcpus", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Errors_of_the_backend_show_when_the_host_starts()
    {
        HostApplicationBuilder none = Host.CreateEmptyApplicationBuilder(new HostApplicationBuilderSettings());
        none.Services.AddUnikraftPlatform();
        using IHost without = none.Build();
        await Assert.ThrowsAsync<InvalidOperationException>(() => without.StartAsync().Guarded());
        await without.StopAsync().Guarded();

        HostApplicationBuilder broken = Host.CreateEmptyApplicationBuilder(new HostApplicationBuilderSettings());
        broken.Services.AddUnikraftPlatform().UseHypervisor(_ => throw new HypervisorUnavailableException("no such device"));
        using IHost failing = broken.Build();
        await Assert.ThrowsAsync<HypervisorUnavailableException>(() => failing.StartAsync().Guarded());
    }

    [Fact]
    public async Task Adding_a_platform_twice_adds_one_and_keeps_what_the_caller_registered()
    {
        await using IUnikraftPlatform own = new UnikraftPlatformBuilder().UseInMemory().Build();
        ServiceCollection services = new();
        services.AddSingleton(own);
        services.AddUnikraftPlatform();
        services.AddUnikraftPlatform().UseInMemory();
        await using ServiceProvider provider = services.BuildServiceProvider();

        Assert.Same(own, provider.GetRequiredService<IUnikraftPlatform>());
        Assert.Single(provider.GetServices<IHostedService>());
        Assert.Same(TimeProvider.System, provider.GetRequiredService<TimeProvider>());
    }

    [Fact]
    public void Missing_arguments_are_refused()
    {
        Assert.Throws<ArgumentNullException>(() => ((IServiceCollection)null!).AddUnikraftPlatform());
        Assert.Throws<ArgumentNullException>(() => new ServiceCollection().AddUnikraftPlatform().UseHypervisor(null!));
        Assert.Throws<ArgumentNullException>(() => ((UnikraftPlatformBuilder)null!).UseInMemory());
    }
}
