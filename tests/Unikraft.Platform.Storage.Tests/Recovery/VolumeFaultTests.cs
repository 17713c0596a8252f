using Unikraft.Platform.Contracts;
using Unikraft.Platform.Storage.Tests.Testing;
using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Storage.Tests.Recovery;

/// <summary>Errors of the host at each call in turn, of everything that volumes and archives do to the disk: one operation fails, and nothing is lost.</summary>
public sealed class VolumeFaultTests
{
    private const int NoSpace = 28;
    private const int InputOutput = 5;
    private const string ArchivePath = "/elsewhere/point.tar";

    /// <summary>The directory of volumes alone: images are made, cut, cloned, resized, frozen and removed, and the journal says so.</summary>
    [Theory]
    [InlineData(NoSpace)]
    [InlineData(InputOutput)]
    public async Task A_call_that_fails_fails_one_operation_on_volumes_and_loses_nothing(int errno)
    {
        int faults = 0;
        for (int call = 0; ; call++)
        {
            VolumeModel model = new();
            SimulatedDisk disk = new();
            bool isReached;
            await using (DurablePlatform platform = DurablePlatform.OnOneDisk(disk))
            {
                disk.ResetCalls();
                int at = call;
                disk.Faults = (_, number) => number == at ? new Fault.Error(errno) : null;
                faults += await model.RunAsync(platform);
                isReached = disk.Calls.Count > call;
                disk.Faults = null;
                await model.CheckAsync(platform);

                // What failed works now.
                Assert.Equal(0, await model.RunAsync(platform));
                await model.CheckAsync(platform);
            }

            SimulatedDisk left = disk.AfterKill();
            await using (DurablePlatform after = DurablePlatform.OnOneDisk(left))
            {
                await model.CheckAsync(after);
                Assert.Empty(await after.Platform.Data!.VerifyAsync().Guarded());
            }

            JudgeSome(left, call);
            if (!isReached)
            {
                break;
            }
        }

        Assert.True(faults > 60, $"{faults} faults");
    }

    [Fact]
    public async Task Short_and_interrupted_calls_change_nothing_of_volumes_and_archives()
    {
        SimulatedDisk disk = new()
        {
            Faults = (name, number) => name is "Write" or "Read" && number % 2 == 0 ? new Fault.Short() : number % 5 == 1 ? new Fault.Error(4) : null,
        };
        VolumeModel model = new();
        await using (DurablePlatform platform = DurablePlatform.OnOneDisk(disk))
        {
            Assert.Equal(0, await model.RunAsync(platform));
            await model.CheckAsync(platform);
            await TakeAsync(platform);
            await platform.Platform.Data!.ExportAsync("point", ArchivePath).Guarded();
            await platform.Checkpoints.DeleteAsync("point").Guarded();
            await platform.Platform.Data!.ImportAsync(ArchivePath).Guarded();
            await LoadAsync(platform, "loaded");
        }

        disk = disk.AfterKill();
        await using DurablePlatform after = DurablePlatform.OnOneDisk(disk);
        await model.CheckAsync(after);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task A_host_that_ends_at_any_call_loses_nothing_of_volumes_that_was_acknowledged(bool isPowerCut)
    {
        int points = 0;
        for (int call = 0; ; call++)
        {
            int at = call;
            SimulatedDisk disk = new();
            VolumeModel model = new();
            DurablePlatform platform = DurablePlatform.OnOneDisk(disk);
            disk.ResetCalls();
            disk.Faults = (_, number) => number == at ? new Fault.PowerCut() : null;
            bool isEnded = await model.RunUntilPowerCutAsync(platform);

            // Nothing of what the process does from now on reaches the disk.
            SimulatedDisk left = isPowerCut ? disk.AfterPowerCut(new Random(call)) : disk.AfterKill();
            if (!isEnded)
            {
                disk.Faults = null;
                await platform.DisposeAsync();
                break;
            }

            points++;
            platform.Abandon();
            await using (DurablePlatform after = DurablePlatform.OnOneDisk(left))
            {
                await model.CheckAsync(after);
                Assert.Empty(await after.Platform.Data!.VerifyAsync().Guarded());
                Assert.Empty(after.Platform.Data!.DamageFound);
            }

            JudgeSome(left, call);
        }

        Assert.True(points > 60, $"{points} points");
    }

    [Theory]
    [InlineData("/elsewhere/point.tar", NoSpace)]
    [InlineData("/elsewhere/point", NoSpace)]
    [InlineData("/elsewhere/point.tar", InputOutput)]
    [InlineData("/elsewhere/point", InputOutput)]
    public async Task A_call_that_fails_fails_the_export_and_leaves_no_archive(string path, int errno)
    {
        SimulatedDisk disk = new();
        disk.MakeDirectory("/elsewhere");
        disk.SyncDirectory("/");
        await using DurablePlatform platform = DurablePlatform.OnOneDisk(disk);
        await TakeAsync(platform);
        int faults = 0;
        for (int call = 0; ; call++)
        {
            int at = call;
            await platform.Platform.WhenVolumesIdleAsync().Guarded();
            disk.ResetCalls();
            disk.Faults = (_, number) => number == at ? new Fault.Error(errno) : null;
            try
            {
                await platform.Platform.Data!.ExportAsync("point", path).Guarded();
                disk.Faults = null;
                if (disk.Calls.Count <= call)
                {
                    break;
                }

                // The fault met something that can wait.
                await platform.Checkpoints.DeleteAsync("point").Guarded();
                await platform.Platform.Data!.ImportAsync(path).Guarded();
                foreach (string file in disk.Files.Where(file => file.StartsWith("/elsewhere/", StringComparison.Ordinal)))
                {
                    disk.Damage(file, null);
                }

                disk.DeleteDirectory(path);
            }
            catch (PlatformException error) when (error is StorageException or DataDamageException)
            {
                faults++;
                disk.Faults = null;
                Assert.DoesNotContain(disk.Files, file => file.StartsWith("/elsewhere/", StringComparison.Ordinal) && !IsLeft(disk, file, at));
            }
        }

        disk.Faults = null;
        Assert.True(faults > 20, $"{faults} faults");
        await platform.Checkpoints.DeleteAsync("point").Guarded();
        await platform.Platform.Data!.ImportAsync(path).Guarded();
        await LoadAsync(platform, "loaded");

        // A file that the same fault kept from being removed says by its name that it is none.
        static bool IsLeft(SimulatedDisk disk, string file, int call) => file.Contains(".tmp", StringComparison.Ordinal) && disk.Calls[call].StartsWith("Delete", StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(NoSpace)]
    [InlineData(InputOutput)]
    public async Task A_call_that_fails_fails_the_import_and_leaves_nothing(int errno)
    {
        SimulatedDisk source = new();
        source.MakeDirectory("/elsewhere");
        source.SyncDirectory("/");
        await using (DurablePlatform platform = DurablePlatform.OnOneDisk(source))
        {
            await TakeAsync(platform);
            await platform.Platform.Data!.ExportAsync("point", ArchivePath).Guarded();
            await platform.Instances.DeleteAsync("source").Guarded();
            await platform.Checkpoints.DeleteAsync("point").Guarded();
        }

        int faults = 0;
        for (int call = 0; ; call++)
        {
            int at = call;
            SimulatedDisk disk = source.AfterKill();
            await using DurablePlatform there = DurablePlatform.OnOneDisk(disk);
            await there.Platform.WhenVolumesIdleAsync().Guarded();
            disk.ResetCalls();
            disk.Faults = (_, number) => number == at ? new Fault.Error(errno) : null;
            try
            {
                await there.Platform.Data!.ImportAsync(ArchivePath).Guarded();
                disk.Faults = null;
                if (disk.Calls.Count <= call)
                {
                    break;
                }
            }
            catch (PlatformException)
            {
                faults++;
                disk.Faults = null;
                Assert.Empty(there.Checkpoints.List());
                await there.Platform.Data!.ImportAsync(ArchivePath).Guarded();
            }

            await LoadAsync(there, "loaded");
            await there.Instances.DeleteAsync("loaded").Guarded();
            await there.Checkpoints.DeleteAsync("point").Guarded();
            await there.DisposeAsync();

            // What the fault kept from being removed goes at the next start.
            await using DurablePlatform after = DurablePlatform.OnOneDisk(disk.AfterKill());
            Assert.Empty(await after.Platform.Data!.VerifyAsync().Guarded());
            await after.Platform.WhenVolumesIdleAsync().Guarded();
            Assert.DoesNotContain(after.Disk.Files, file => file.EndsWith(".qcow2", StringComparison.Ordinal) || file.Contains("/import/", StringComparison.Ordinal));
        }

        Assert.True(faults > 30, $"{faults} faults");
    }

    // Only whether the images are clean: what is on them is asked of their guests.
    private static void JudgeSome(SimulatedDisk left, int call)
    {
        if (call % Judging.OneIn(20, 5) == 0)
        {
            using ExportedImages images = new(left);
            images.Judge(new Dictionary<Guid, SectorModel>(), $"call {call}");
        }
    }

    private static async Task TakeAsync(DurablePlatform platform)
    {
        await platform.Instances.CreateAsync(DurablePlatform.Request("kv") with
        {
            Name = "source",
            Volumes = [new InstanceVolume { SizeMb = 1, Filesystem = VolumeFilesystem.None, At = "/data" }],
            WaitTimeout = Timeout.InfiniteTimeSpan,
        }).Guarded();
        Assert.Equal("ok 1", await platform.AskAsync("source", "put who both"));
        await platform.CheckpointAsync("source", "point");
    }

    private static async Task LoadAsync(DurablePlatform platform, string name)
    {
        await platform.Instances.CreateAsync(new CreateInstanceRequest { Name = name, Checkpoint = "point", WaitTimeout = Timeout.InfiniteTimeSpan }).Guarded();
        Assert.Equal("value=both", await platform.AskAsync(name, "get who"));
        Assert.StartsWith("check ok", await platform.AskAsync(name, "check"), StringComparison.Ordinal);
    }
}
