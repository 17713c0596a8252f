using System.Globalization;
using Unikraft.Platform.Kvm.Tests.Testing;
using Unikraft.Platform.TestKit;
using Unikraft.Platform.Volumes;

namespace Unikraft.Platform.Kvm.Tests.Machines;

/// <summary>Instances with volumes, checkpoints and templates in a data directory on a file system that is really full.</summary>
[RequiresKvm]
[RequiresMount]
public sealed class FullDataDirectoryTests : IAsyncLifetime
{
    private SmallPlatform _small = null!;
    private int _last;

    private IUnikraftPlatform Platform => _small.Platform;

    public async Task InitializeAsync() => _small = await SmallPlatform.StartAsync(
        sizeMb: 160,
        static (options, path) => (options.DataDirectory, options.MinFreeDiskBytes) = (Path.Combine(path, "data"), 0));

    public async Task DisposeAsync() => await _small.DisposeAsync();

    /// <remarks>Twice as many pages each time let an operation get farther, until it succeeds.</remarks>
    /// <remarks>Not in the SVM lab: what a full disk does to an operation is not KVM's.</remarks>
    [ContractFact]
    [Trait("Lab", "TooLong")]
    public async Task An_operation_on_an_instance_with_a_volume_fails_whole_and_succeeds_when_there_is_room()
    {
        await Platform.Volumes.CreateAsync(new CreateVolumeRequest { Name = "extra", SizeMb = 8, Filesystem = VolumeFilesystem.None });
        await StartAsync("source");
        Assert.Equal("ok 1", await PutAsync());
        await StartAsync("base");
        await StartAsync("other");
        await Platform.Instances.StopAsync("other").Guarded();
        (string Name, Func<Task> Act)[] operations =
        [
            ("checkpoint", () => Platform.Checkpoints.CreateAsync(new CreateCheckpointRequest { From = "source", Name = "point", WaitTimeout = Timeout.InfiniteTimeSpan })),
            ("load", () => _small.CreateAsync(new CreateInstanceRequest { Name = "loaded", Checkpoint = "point" })),
            ("branch", () => _small.CreateAsync(new CreateInstanceRequest { Name = "branch", BranchFrom = "source" })),
            ("template", () => Platform.Templates.ConvertAsync("base")),
            ("create of a template", () => _small.CreateAsync(new CreateInstanceRequest { Name = "made", Template = "base" })),
            ("attach", () => Platform.Volumes.AttachAsync("extra", new AttachVolumeRequest { Instance = "other", At = "/extra" })),
            ("start", () => Platform.Instances.StartAsync("other")),
        ];
        foreach ((string name, Func<Task> act) in operations)
        {
            int failures = 0;
            bool isDone = false;
            for (int pages = 0; !isDone; pages = pages == 0 ? 1 : 2 * pages)
            {
                Assert.InRange(pages, 0, 40_000);
                string before = Describe();
                _small.Disk.Fill(pages);
                Exception? error = await Record.ExceptionAsync(() => act().Guarded());
                _small.Disk.Free();
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
            Assert.StartsWith("check ok", await _small.AskAsync(name, "check"), StringComparison.Ordinal);
        }

        string described = DescribeKept();
        await _small.RestartAsync();
        Assert.Equal(described, DescribeKept());
        Assert.Empty(await Platform.Data!.VerifyAsync().Guarded());
        await Platform.Instances.StartAsync("source").Guarded();
        Assert.Equal($"check ok records={_last} keys={_last} last={_last}", await _small.AskAsync("source", "check"));
    }

    private List<string> Output { get; } = [];

    private static string Acknowledged(int number) => string.Create(CultureInfo.InvariantCulture, $"ok {number}");

    private string Describe() => string.Join('\n', Platform.Instances.List().Select(static instance => $"{instance.Name} {instance.State}").Append(DescribeKept()));

    private string DescribeKept() => string.Join(
        '\n',
        [
            .. Platform.Instances.List().Select(static instance => $"{instance.Name}: {string.Join(',', instance.Volumes.Select(static volume => volume.At))}").Order(StringComparer.Ordinal),
            .. Platform.Checkpoints.List().Select(static point => $"checkpoint {point.Name}"),
            .. Platform.Templates.List().Select(static template => $"template {template.Name}"),
        ]);

    private Task<Instance> StartAsync(string name) => _small.StartKvAsync(new InstanceVolume { SizeMb = 8, At = "/data" }, name);

    private async Task<string> PutAsync()
    {
        string answer = await _small.AskAsync("source", string.Create(CultureInfo.InvariantCulture, $"put key-{_last + 1} {_last + 1}"));
        _last++;
        return answer;
    }
}
