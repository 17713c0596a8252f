using Unikraft.Platform.Contracts;
using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.InMemory;
using Unikraft.Platform.Storage.Tests.Testing;
using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Storage.Tests.Recovery;

/// <summary>Images of several parts, which are not where they were any more: every part boots again.</summary>
public sealed class ImageTests : IDisposable
{
    private static readonly GuestImageContent Parts = new((byte[])[1, 2, 3])
    {
        Initrd = (byte[])[4, 5, 6, 7],
        CommandLine = "console=ttyS0 quiet",
        Args = ["serve", "--all"],
        Env = new Dictionary<string, string>(StringComparer.Ordinal) { ["HOME"] = "/srv" },
    };

    private readonly string _folder = Directory.CreateTempSubdirectory("images-").FullName;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [Fact]
    public async Task All_parts_are_there_after_a_restart()
    {
        SimulatedDisk disk = new();
        await using (UnikraftPlatform before = New(disk, boots: null))
        {
            await before.Instances.CreateAsync(Request()).Guarded();
        }

        SimulatedDisk next = disk.AfterKill();
        List<MachineConfiguration> boots = [];
        await using UnikraftPlatform after = New(next, boots);
        await after.Instances.StartAsync("worker").Guarded();
        await AssertSameAsync(Assert.Single(boots).Image);
    }

    [Fact]
    public async Task All_parts_are_carried_in_an_archive()
    {
        string archive = await ExportAsync();
        SimulatedDisk disk = new();
        await using (UnikraftPlatform there = New(disk, boots: null))
        {
            await there.Data!.ImportAsync(archive).Guarded();
        }

        List<MachineConfiguration> boots = [];
        await using UnikraftPlatform after = New(disk.AfterKill(), boots);
        await after.Instances.CreateAsync(new CreateInstanceRequest { Name = "loaded", Checkpoint = "point", WaitTimeout = Timeout.InfiniteTimeSpan }).Guarded();
        await after.Instances.StopAsync("loaded").Guarded();
        Assert.Empty(boots);
        await after.Instances.StartAsync("loaded").Guarded();
        await AssertSameAsync(Assert.Single(boots).Image);
    }

    [Fact]
    public async Task A_damaged_part_is_named_and_nothing_boots_from_it()
    {
        SimulatedDisk disk = new();
        await using (UnikraftPlatform before = New(disk, boots: null))
        {
            await before.Instances.CreateAsync(Request()).Guarded();
        }

        string[] parts = [.. disk.Files.Where(file => file.StartsWith("/data/images/", StringComparison.Ordinal))];
        Assert.Equal(2, parts.Length);
        foreach (string part in parts)
        {
            SimulatedDisk damaged = disk.AfterKill();
            damaged.Damage(part, [9]);
            List<MachineConfiguration> boots = [];
            await using UnikraftPlatform after = New(damaged, boots);
            Assert.Equal(part, Assert.Single(await after.Data!.VerifyAsync().Guarded()).Path);
            await after.Instances.StartAsync("worker").Guarded();
            DataDamageException error = await Assert.ThrowsAsync<DataDamageException>(() => Assert.Single(boots).Image.ReadContentAsync().AsTask());
            Assert.Equal(part, error.Path);
        }
    }

    [Fact]
    public async Task A_part_that_is_damaged_here_is_taken_from_the_archive()
    {
        string archive = await ExportAsync();
        SimulatedDisk disk = new();
        await using (UnikraftPlatform there = New(disk, boots: null))
        {
            await there.Instances.CreateAsync(Request()).Guarded();
        }

        foreach (string part in disk.Files.Where(static file => file.StartsWith("/data/images/", StringComparison.Ordinal)))
        {
            disk.Damage(part, [9]);
        }

        List<MachineConfiguration> boots = [];
        await using UnikraftPlatform after = New(disk, boots);
        Assert.Equal(2, (await after.Data!.VerifyAsync().Guarded()).Count);
        await after.Data!.ImportAsync(archive).Guarded();
        Assert.Empty(await after.Data!.VerifyAsync().Guarded());
        await after.Instances.StartAsync("worker").Guarded();
        await AssertSameAsync(Assert.Single(boots).Image);
    }

    /// <summary>What was not taken to the disk the first time is there after the second, whichever call had failed, when the power goes out then.</summary>
    [Theory]
    [InlineData("Create")]
    [InlineData("Write")]
    [InlineData("Sync")]
    [InlineData("Rename")]
    [InlineData("SyncDirectory")]
    public async Task An_image_whose_keeping_failed_is_on_the_disk_when_it_is_acknowledged(string broken)
    {
        const int InputOutput = 5;
        int acknowledged = 0;
        for (int failing = 0; failing < 3; failing++)
        {
            SimulatedDisk disk = new();
            await using UnikraftPlatform platform = New(disk, boots: null);
            (int met, int at) = (0, failing);
            disk.Faults = (call, _) => string.Equals(call, broken, StringComparison.Ordinal) && met++ == at ? new Fault.Error(InputOutput) : null;
            Exception? first = await Record.ExceptionAsync(() => platform.Instances.CreateAsync(Request()).Guarded());
            disk.Faults = null;
            Assert.True(first is null or StorageException, first?.ToString());
            if (first is not null)
            {
                await platform.Instances.CreateAsync(Request()).Guarded();
                acknowledged++;
            }

            for (int outcome = 0; outcome < 8; outcome++)
            {
                List<MachineConfiguration> boots = [];
                await using UnikraftPlatform after = New(disk.AfterPowerCut(new Random(outcome)), boots);
                await after.Instances.StartAsync("worker").Guarded();
                await AssertSameAsync(Assert.Single(boots).Image);
            }
        }

        Assert.InRange(acknowledged, 1, int.MaxValue);
    }

    /// <summary>Makes an archive of a checkpoint on another host.</summary>
    private async Task<string> ExportAsync()
    {
        string archive = Path.Combine(_folder, "archive");
        await using UnikraftPlatform here = New(new SimulatedDisk(), boots: null);
        await here.Instances.CreateAsync(Request()).Guarded();
        await here.Checkpoints.CreateAsync(new CreateCheckpointRequest { From = "worker", Name = "point", WaitTimeout = Timeout.InfiniteTimeSpan }).Guarded();
        await here.Data!.ExportAsync("point", archive).Guarded();
        return archive;
    }

    private static CreateInstanceRequest Request() => new()
    {
        Name = "worker",
        // As the in-memory backend knows it by name; the parts are nowhere but in here.
        Image = GuestImage.FromReader("counter", _ => ValueTask.FromResult(Parts)),
        WaitTimeout = Timeout.InfiniteTimeSpan,
    };

    private static async Task AssertSameAsync(GuestImage image)
    {
        GuestImageContent content = await image.ReadContentAsync();
        Assert.Equal(Parts.Kernel.ToArray(), content.Kernel.ToArray());
        Assert.Equal(Parts.Initrd.ToArray(), content.Initrd.ToArray());
        Assert.Equal(Parts.CommandLine, content.CommandLine);
        Assert.Equal(Parts.Args, content.Args);
        Assert.Equal(Parts.Env, content.Env);
    }

    private static UnikraftPlatform New(SimulatedDisk disk, List<MachineConfiguration>? boots) => new(
        new PlatformOptions { DataDirectory = DurablePlatform.Root },
        new ManualTimeProvider(),
        new ListLoggerFactory(),
        context => new WrappedHypervisor(new InMemoryHypervisor(new InMemoryHypervisorOptions(), context, disk)) { Booting = configuration => boots?.Add(configuration) },
        disk);
}
