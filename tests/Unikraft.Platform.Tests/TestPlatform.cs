using Microsoft.Extensions.Logging;
using Unikraft.Platform.Contracts;
using Unikraft.Platform.InMemory;
using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Tests;

/// <summary>A platform on the in-memory backend under virtual time, which checks at its end that nothing was leaked.</summary>
internal sealed class TestPlatform : IAsyncDisposable
{
    private InMemoryHypervisor? _hypervisor;

    public TestPlatform(Action<InMemoryHypervisorOptions>? configure = null, Action<PlatformOptions>? options = null)
    {
        InMemoryHypervisorOptions backend = new();
        configure?.Invoke(backend);
        Platform = (UnikraftPlatform)new UnikraftPlatformBuilder()
            .Configure(options ?? (_ => { }))
            .UseTimeProvider(Time)
            .UseLoggerFactory(Logs)
            .UseHypervisor(context => _hypervisor = new InMemoryHypervisor(backend, context))
            .Build();
    }

    public ManualTimeProvider Time { get; } = new();

    public TestKit.ListLoggerFactory Logs { get; } = new();

    public UnikraftPlatform Platform { get; }

    public IInstanceManager Instances => Platform.Instances;

    public ICheckpointStore Checkpoints => Platform.Checkpoints;

    public ITemplateStore Templates => Platform.Templates;

    public int Machines => _hypervisor!.Machines;

    public int Snapshots => _hypervisor!.Snapshots;

    public static GuestImage Image(string name) => GuestImage.FromFile($"/images/{name}.elf");

    public static CreateInstanceRequest Request(string image, params string[] args) => new() { Image = Image(image), Args = args };

    public Task<Instance> CreateAsync(string image, params string[] args) => Instances
        .CreateAsync(Request(image, args) with { WaitTimeout = Timeout.InfiniteTimeSpan })
        .Guarded();

    public Task<Instance> CreateCounterAsync() => CreateAsync("counter", "--period-ms", "0");

    public Task<Instance> WaitAsync(NameOrUuid instance, InstanceState state) => Instances.WaitAsync(instance, state).Guarded();

    public bool HasLogged(int eventId) => Logs.Records.Any(record => record.Id.Id == eventId);

    public IEnumerable<string> Errors() =>
        Logs.Records.Where(record => record.Level >= LogLevel.Error).Select(record => $"{record.Message}: {record.Exception}");

    public async ValueTask DisposeAsync()
    {
        await Platform.DisposeAsync().Guarded();
        Assert.Equal((0, 0), (Machines, Snapshots));
    }
}
