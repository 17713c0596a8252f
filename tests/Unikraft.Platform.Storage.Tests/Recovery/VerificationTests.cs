using Unikraft.Platform.Contracts;
using Unikraft.Platform.Storage.Tests.Testing;

namespace Unikraft.Platform.Storage.Tests.Recovery;

/// <summary>A verification of everything while the platform goes on.</summary>
public sealed class VerificationTests
{
    [Fact]
    public async Task What_is_deleted_meanwhile_is_no_damage()
    {
        SimulatedDisk disk = new();
        await using DurablePlatform platform = DurablePlatform.OnOneDisk(disk);
        await platform.CreateCounterAsync("one");
        await platform.CheckpointAsync("one", "point");
        await platform.Instances.StopAsync("one").Guarded();
        foreach (string name in (string[])["first", "second"])
        {
            await platform.Platform.Volumes.CreateAsync(new CreateVolumeRequest { Name = name, SizeMb = 1, Filesystem = VolumeFilesystem.None }).Guarded();
        }

        await platform.Platform.WhenVolumesIdleAsync().Guarded();
        bool isDeleted = false;
        bool isVolumeDeleted = false;
        DeletingProgress progress = new(() =>
        {
            if (isDeleted)
            {
                return;
            }

            // When it has listed what it is to verify, and has verified nothing.
            isDeleted = true;
            platform.Checkpoints.DeleteAsync("point").GetAwaiter().GetResult();
            platform.Instances.DeleteAsync("one").GetAwaiter().GetResult();

            // When it reads the first of two volumes.
            disk.Faults = (call, _) =>
            {
                if (call is "OpenShared" && !isVolumeDeleted)
                {
                    isVolumeDeleted = true;
                    platform.Platform.Volumes.DeleteAsync("second").GetAwaiter().GetResult();
                }

                return null;
            };
        });

        Assert.Empty(await platform.Platform.Data!.VerifyAsync(progress).Guarded());
        disk.Faults = null;
        Assert.True(isDeleted && isVolumeDeleted);
        Assert.Equal(["first"], platform.Platform.Volumes.List().Select(static volume => volume.Name));
    }

    [Fact]
    public async Task A_verification_of_everything_tells_how_far_it_has_come()
    {
        SimulatedDisk disk = new();
        await using DurablePlatform platform = DurablePlatform.OnOneDisk(disk);
        await platform.CreateCounterAsync("one");
        await platform.CheckpointAsync("one", "first");
        await platform.CheckpointAsync("one", "second");
        await platform.Instances.CreateAsync(DurablePlatform.Request("hello") with { Name = "two", WaitTimeout = Timeout.InfiniteTimeSpan }).Guarded();
        await platform.CreateCounterAsync("base");
        await platform.Templates.ConvertAsync("base", new AutokillPolicy(TimeSpan.FromHours(1))).Guarded();
        await platform.Platform.Volumes.CreateAsync(new CreateVolumeRequest { Name = "data", SizeMb = 1, Filesystem = VolumeFilesystem.None }).Guarded();
        await platform.Platform.WhenVolumesIdleAsync().Guarded();
        int before = 0;
        ListedProgress progress = new(() => before = disk.Calls.Count);

        Assert.Empty(await platform.Platform.Data!.VerifyAsync(progress).Guarded());

        // Metadata, three snapshots, logs of two instances, and what volumes there are.
        Assert.Equal(Enumerable.Range(1, 7).Select(static completed => new VerificationProgress(completed, 7)), progress.Reports.Where(static report => report.CurrentTotalBytes == 0));

        // Within a snapshot and an image of a volume, how much has been read; never more than there is.
        VerificationProgress[] within = [.. progress.Reports.Where(static report => report.CurrentTotalBytes > 0)];
        Assert.Equal([1, 2, 3], within.Select(static report => report.Completed).Distinct());
        Assert.All(within, static report => Assert.InRange(report.CurrentBytes, 1, report.CurrentTotalBytes));

        // When it says that all is done, nothing more is read.
        Assert.Equal(before, disk.Calls.Count);
    }

    [Fact]
    public async Task A_verification_of_one_checkpoint_tells_how_far_it_has_come_and_looks_at_nothing_else()
    {
        await using DurablePlatform before = new();
        await before.CreateCounterAsync("source");
        await before.CheckpointAsync("source", "sound");
        string[] files = [.. before.Disk.Files];
        await before.TickAsync("source");
        await before.CheckpointAsync("source", "damaged");
        await using DurablePlatform after = before.Kill();
        string file = after.Disk.Files.Except(files, StringComparer.Ordinal).Single(static file => file.EndsWith(".guest", StringComparison.Ordinal));
        byte[] content = after.Disk.Content(file);
        content[content.Length / 2] ^= 1;
        after.Disk.Damage(file, content);
        ListedProgress sound = new();
        ListedProgress damaged = new();

        await after.Platform.Data!.VerifyAsync("sound", sound).Guarded();
        DataDamageException error = await Assert.ThrowsAsync<DataDamageException>(() => after.Platform.Data!.VerifyAsync("damaged", damaged)).Guarded();

        Assert.Equal([new(0, 1), new(1, 1)], sound.Reports.Where(static report => report.CurrentTotalBytes == 0));
        Assert.Equal([new(0, 1)], damaged.Reports.Where(static report => report.CurrentTotalBytes == 0));
        Assert.Equal((file, after.Checkpoints.Get("damaged").Uuid), (error.Path, Assert.Single(error.Dependents)));
        await Assert.ThrowsAsync<ResourceNotFoundException>(() => after.Platform.Data!.VerifyAsync("none"));
    }

    private sealed class ListedProgress(Action? note = null) : IProgress<VerificationProgress>
    {
        public List<VerificationProgress> Reports { get; } = [];

        public void Report(VerificationProgress value)
        {
            Reports.Add(value);
            note?.Invoke();
        }
    }

    private sealed class DeletingProgress(Action delete) : IProgress<VerificationProgress>
    {
        public void Report(VerificationProgress value) => delete();
    }
}
