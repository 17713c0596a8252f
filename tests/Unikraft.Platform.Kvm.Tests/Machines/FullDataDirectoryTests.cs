using System.Globalization;
using Unikraft.Platform.Kvm.Tests.Testing;
using Unikraft.Platform.TestKit;
using Unikraft.Platform.Volumes;
using ConsoleSession = Unikraft.Platform.Contracts.ConsoleSession;

namespace Unikraft.Platform.Kvm.Tests.Machines;

/// <summary>Instances with volumes, checkpoints and templates in a data directory on a file system that is really full.</summary>
[RequiresKvm]
[RequiresMount]
public sealed class FullDataDirectoryTests : IAsyncLifetime
{
    private SmallFileSystem _disk = null!;
    private IUnikraftPlatform _platform = null!;
    private int _last;

    public async Task InitializeAsync()
    {
        _disk = await SmallFileSystem.MountAsync(sizeMb: 160);
        _platform = NewPlatform();
    }

    public async Task DisposeAsync()
    {
        await _platform.DisposeAsync();
        Assert.Empty(await LeftImages.FindProblemsAsync(_disk.Path));
        await _disk.DisposeAsync();
    }

    /// <remarks>Twice as many pages each time let an operation get farther, until it succeeds.</remarks>
    /// <remarks>Not in the SVM lab: what a full disk does to an operation is not KVM's.</remarks>
    [ContractFact]
    [Trait("Lab", "TooLong")]
    public async Task An_operation_on_an_instance_with_a_volume_fails_whole_and_succeeds_when_there_is_room()
    {
        await _platform.Volumes.CreateAsync(new CreateVolumeRequest { Name = "extra", SizeMb = 8, Filesystem = VolumeFilesystem.None });
        await StartAsync("source");
        Assert.Equal("ok 1", await PutAsync());
        await StartAsync("base");
        await StartAsync("other");
        await _platform.Instances.StopAsync("other").Guarded();
        (string Name, Func<Task> Act)[] operations =
        [
            ("checkpoint", () => _platform.Checkpoints.CreateAsync(new CreateCheckpointRequest { From = "source", Name = "point", WaitTimeout = Timeout.InfiniteTimeSpan })),
            ("load", () => CreateAsync(new CreateInstanceRequest { Name = "loaded", Checkpoint = "point" })),
            ("branch", () => CreateAsync(new CreateInstanceRequest { Name = "branch", BranchFrom = "source" })),
            ("template", () => _platform.Templates.ConvertAsync("base")),
            ("create of a template", () => CreateAsync(new CreateInstanceRequest { Name = "made", Template = "base" })),
            ("attach", () => _platform.Volumes.AttachAsync("extra", new AttachVolumeRequest { Instance = "other", At = "/extra" })),
            ("start", () => _platform.Instances.StartAsync("other")),
        ];
        foreach ((string name, Func<Task> act) in operations)
        {
            int failures = 0;
            bool isDone = false;
            for (int pages = 0; !isDone; pages = pages == 0 ? 1 : 2 * pages)
            {
                Assert.InRange(pages, 0, 40_000);
                string before = Describe();
                _disk.Fill(pages);
                Exception? error = await Record.ExceptionAsync(() => act().Guarded());
                _disk.Free();
                isDone = error is null;
                if (error is not null)
                {
                    failures++;
                    Assert.True(
                        error is StorageException { IsFull: true } or BlockDeviceException { Error: BlockDeviceError.NoSpace },
                        string.Create(CultureInfo.InvariantCulture, $"{name}, {pages} pages: {error}"));
                    Assert.Equal(before, Describe());
                }

                Assert.Equal(Acknowledged(_last + 1), await PutAsync());
            }

            Output.Add(string.Create(CultureInfo.InvariantCulture, $"{name} {failures}"));
        }

        Assert.True(Output.Count(static line => !line.EndsWith(" 0", StringComparison.Ordinal)) >= 4, string.Join(", ", Output));
        foreach (string name in (string[])["loaded", "branch", "made"])
        {
            Assert.StartsWith("check ok", await AskAsync(name, "check"), StringComparison.Ordinal);
        }

        string described = DescribeKept();
        await _platform.DisposeAsync();
        _platform = NewPlatform();
        Assert.Equal(described, DescribeKept());
        Assert.Empty(await _platform.Data!.VerifyAsync().Guarded());
        await _platform.Instances.StartAsync("source").Guarded();
        Assert.Equal($"check ok records={_last} keys={_last} last={_last}", await AskAsync("source", "check"));
    }

    private List<string> Output { get; } = [];

    private static string Acknowledged(int number) => string.Create(CultureInfo.InvariantCulture, $"ok {number}");

    private string Describe() => string.Join('\n', _platform.Instances.List().Select(static instance => $"{instance.Name} {instance.State}").Append(DescribeKept()));

    private string DescribeKept() => string.Join(
        '\n',
        [
            .. _platform.Instances.List().Select(static instance => $"{instance.Name}: {string.Join(',', instance.Volumes.Select(static volume => volume.At))}").Order(StringComparer.Ordinal),
            .. _platform.Checkpoints.List().Select(static point => $"checkpoint {point.Name}"),
            .. _platform.Templates.List().Select(static template => $"template {template.Name}"),
        ]);

    private IUnikraftPlatform NewPlatform() => new UnikraftPlatformBuilder()
        .Configure(options => (options.DataDirectory, options.MinFreeDiskBytes) = (Path.Combine(_disk.Path, "data"), 0))
        .UseKvm()
        .Build();

    private Task<Instance> StartAsync(string name) => CreateAsync(new CreateInstanceRequest
    {
        Name = name,
        Image = GuestImages.Get("kv"),
        MemoryMb = 16,
        Volumes = [new InstanceVolume { SizeMb = 8, At = "/data" }],
    });

    private Task<Instance> CreateAsync(CreateInstanceRequest request) => _platform.Instances.CreateAsync(request with { WaitTimeout = Timeout.InfiniteTimeSpan });

    private async Task<string> PutAsync()
    {
        string answer = await AskAsync("source", string.Create(CultureInfo.InvariantCulture, $"put key-{_last + 1} {_last + 1}"));
        _last++;
        return answer;
    }

    private async Task<string> AskAsync(NameOrUuid instance, string command)
    {
        await using ConsoleSession console = new(_platform.Instances.AttachConsole(instance));
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
}
