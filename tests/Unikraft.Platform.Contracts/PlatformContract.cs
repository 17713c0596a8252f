using System.Text.RegularExpressions;
using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Contracts;

/// <summary>What a platform must do on every backend. Split by subject over several files.</summary>
public abstract partial class PlatformContract : IAsyncLifetime
{
    private static readonly CancellationToken Cancelled = new(canceled: true);
    private static readonly StopCode CleanStop = new(0x8200);

    private readonly TestKit.ListLoggerFactory _logs = new();
    private readonly DirectoryInfo _volumes = Directory.CreateTempSubdirectory("unikraft-contract-");
    private IUnikraftPlatform? _platform;

    /// <summary>The platform under test.</summary>
    protected IUnikraftPlatform Platform => _platform!;

    /// <summary>Its instances.</summary>
    protected IInstanceManager Instances => Platform.Instances;

    /// <summary>Its checkpoints.</summary>
    protected ICheckpointStore Checkpoints => Platform.Checkpoints;

    /// <summary>Its templates.</summary>
    protected ITemplateStore Templates => Platform.Templates;

    /// <summary>Chooses the backend, and a clock if it is not to be the system's.</summary>
    /// <param name="builder">The builder.</param>
    protected abstract void Configure(UnikraftPlatformBuilder builder);

    /// <summary>The image of a guest.</summary>
    /// <param name="name"><c>hello</c>, <c>counter</c>, <c>crash</c> or <c>kv</c>.</param>
    protected abstract GuestImage Image(string name);

    /// <inheritdoc/>
    public virtual Task InitializeAsync()
    {
        _platform = Build();
        return Task.CompletedTask;
    }

    /// <inheritdoc/>
    public virtual async Task DisposeAsync()
    {
        if (_platform is not null)
        {
            await _platform.DisposeAsync().Guarded();
        }

        Assert.Empty(await LeftImages.FindProblemsAsync(_volumes.FullName).Guarded());
        _volumes.Delete(recursive: true);

        // Errors are what no test of the contract provokes: a machine that failed, one that could not be freed.
        Assert.DoesNotContain(_logs.Records, record => record.Level >= Microsoft.Extensions.Logging.LogLevel.Error);
    }

    /// <summary>Builds another platform of the same kind.</summary>
    protected IUnikraftPlatform Build()
    {
        UnikraftPlatformBuilder builder = new UnikraftPlatformBuilder()
            .UseLoggerFactory(_logs)
            .Configure(options =>
            {
                options.VolumeDirectory = Path.Combine(_volumes.FullName, Guid.NewGuid().ToString("N"));

                // A guest that listens is not killed for being slow. What comes after the grace period is proven where time is virtual.
                options.StopGracePeriod = Timeout.InfiniteTimeSpan;
            });
        Configure(builder);
        return builder.Build();
    }

    /// <summary>A request for an instance with 64 MiB.</summary>
    /// <param name="image">The name of the guest.</param>
    /// <param name="args">Its arguments.</param>
    protected CreateInstanceRequest Request(string image, params string[] args) =>
        new() { Image = Image(image), Args = args, MemoryMb = 64 };

    /// <summary>Creates an instance that ticks on request only, and waits until it runs.</summary>
    /// <param name="name">Its name.</param>
    protected Task<Instance> CreateCounterAsync(string? name = null) => Instances.CreateAsync(
        Request("counter", "--period-ms", "0") with { Name = name, WaitTimeout = Timeout.InfiniteTimeSpan }).Guarded();

    /// <summary>Creates an instance and waits until it has ended.</summary>
    /// <param name="image">The name of the guest.</param>
    /// <param name="args">Its arguments.</param>
    protected async Task<Instance> RunAsync(string image, params string[] args)
    {
        Instance instance = await Instances.CreateAsync(Request(image, args)).Guarded();
        return await Instances.WaitAsync(instance.Uuid, InstanceState.Stopped).Guarded();
    }

    /// <summary>Attaches to the console of an instance.</summary>
    /// <param name="instance">The instance.</param>
    /// <param name="fromStart">Whether to read what was written before.</param>
    protected ConsoleSession Attach(NameOrUuid instance, bool fromStart = false) =>
        new(Instances.AttachConsole(instance, new ConsoleOptions { FromStart = fromStart }));

    /// <summary>Ticks once.</summary>
    /// <param name="instance">A running counter.</param>
    protected async Task<CounterTick> TickAsync(NameOrUuid instance)
    {
        await using ConsoleSession console = Attach(instance);
        return await console.TickAsync();
    }

    /// <summary>Creates an instance of the crash guest and waits until it is where its kind takes it.</summary>
    /// <param name="args">The kind.</param>
    protected async Task<Instance> CreateCrashAsync(params string[] args)
    {
        Instance instance = await Instances
            .CreateAsync(Request("crash", args) with { WaitTimeout = Timeout.InfiniteTimeSpan })
            .Guarded();
        await using ConsoleSession console = Attach(instance.Uuid, fromStart: true);
        await console.ReadLineAsync("crashing: ");
        return instance;
    }

    private static async Task<TError> FailsAsync<TError>(string message, Func<Task> action)
        where TError : Exception
    {
        TError error = await Assert.ThrowsAsync<TError>(action);
        Assert.Equal(message, error.Message);
        return error;
    }

    [GeneratedRegex("^(?<stem>.*)-[a-z0-9]{5}$", RegexOptions.ExplicitCapture, matchTimeoutMilliseconds: 1000)]
    private static partial Regex GeneratedName();

    private static void AssertGeneratedFrom(string stem, string name) =>
        Assert.Equal(stem, GeneratedName().Match(name).Groups["stem"].Value);
}
