using Unikraft.Platform.TestKit;
using ConsoleSession = Unikraft.Platform.Contracts.ConsoleSession;

namespace Unikraft.Platform.Kvm.Tests.Testing;

/// <summary>A platform on KVM with all its files on a file system that is soon full. QEMU judges the images that it leaves there.</summary>
internal sealed class SmallPlatform : IAsyncDisposable
{
    private readonly Action<PlatformOptions, string> _configure;

    private SmallPlatform(SmallFileSystem disk, Action<PlatformOptions, string> configure)
    {
        (Disk, _configure) = (disk, configure);
        Platform = Build();
    }

    internal SmallFileSystem Disk { get; }

    internal IUnikraftPlatform Platform { get; private set; }

    /// <param name="sizeMb">The size of the file system in MiB.</param>
    /// <param name="configure">Given the options and the path of the file system: says what is there.</param>
    internal static async Task<SmallPlatform> StartAsync(int sizeMb, Action<PlatformOptions, string> configure) =>
        new(await SmallFileSystem.MountAsync(sizeMb), configure);

    public async ValueTask DisposeAsync()
    {
        await Platform.DisposeAsync();
        Assert.Empty(await LeftImages.FindProblemsAsync(Disk.Path));
        await Disk.DisposeAsync();
    }

    /// <summary>The platform ends; another one finds what it has left.</summary>
    internal async Task RestartAsync(Action? between = null)
    {
        await Platform.DisposeAsync();
        between?.Invoke();
        Platform = Build();
    }

    internal Task<Instance> CreateAsync(CreateInstanceRequest request) => Platform.Instances.CreateAsync(request with { WaitTimeout = Timeout.InfiniteTimeSpan });

    /// <summary>Starts the guest <c>kv</c> on a volume.</summary>
    internal Task<Instance> StartKvAsync(InstanceVolume volume, string? name = null) => CreateAsync(new CreateInstanceRequest
    {
        Name = name,
        Image = GuestImages.Get("kv"),
        MemoryMb = 16,
        Volumes = [volume],
    });

    /// <summary>Asks the guest <c>kv</c>, and waits for its answer.</summary>
    internal async Task<string> AskAsync(NameOrUuid instance, string command)
    {
        await using ConsoleSession console = new(Platform.Instances.AttachConsole(instance));
        await console.WriteLineAsync(command);
        while (await console.ReadLineAsync() is { } line)
        {
            if (!line.StartsWith("kv ready", StringComparison.Ordinal))
            {
                return line;
            }
        }

        return "";
    }

    private IUnikraftPlatform Build() => new UnikraftPlatformBuilder().Configure(options => _configure(options, Disk.Path)).UseKvm().Build();
}
