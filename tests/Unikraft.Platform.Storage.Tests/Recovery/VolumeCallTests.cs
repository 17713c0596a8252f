using Unikraft.Platform.Contracts;
using Unikraft.Platform.Storage.Tests.Testing;

namespace Unikraft.Platform.Storage.Tests.Recovery;

/// <summary>What callers of operations on volumes meet while the disk is in the middle of them.</summary>
public sealed class VolumeCallTests
{
    [Fact]
    public async Task Nobody_gets_a_volume_that_is_being_turned_into_a_template()
    {
        SimulatedDisk disk = new();
        await using DurablePlatform platform = DurablePlatform.OnOneDisk(disk);
        IVolumeStore volumes = platform.Platform.Volumes;
        await volumes.CreateAsync(Blank("data")).Guarded();
        Instance instance = await platform.Instances.CreateAsync(DurablePlatform.Request("kv") with { Autostart = false }).Guarded();
        TaskCompletionSource reached = new(TaskCreationOptions.RunContinuationsAsynchronously);
        TaskCompletionSource released = new(TaskCreationOptions.RunContinuationsAsynchronously);
        disk.Faults = (_, _) =>
        {
            if (reached.TrySetResult())
            {
                released.Task.Wait();
            }

            return null;
        };

        Task<Volume> conversion = volumes.ConvertAsync("data");
        await reached.Task.Guarded();
        Exception? attachment = await Record.ExceptionAsync(() => volumes.AttachAsync("data", new AttachVolumeRequest { Instance = instance.Uuid, At = "/data" }).Guarded());
        Exception? creation = await Record.ExceptionAsync(
            () => platform.Instances.CreateAsync(DurablePlatform.Request("kv") with { Volumes = [new InstanceVolume { Volume = "data", At = "/data" }] }).Guarded());
        released.SetResult();
        Volume template = await conversion.Guarded();

        Assert.IsType<VolumeBusyException>(attachment);
        Assert.IsType<VolumeBusyException>(creation);
        Assert.Equal(VolumeState.Template, template.State);
        Assert.Empty(volumes.Get("data").AttachedTo);
        Assert.Empty(platform.Instances.Get(instance.Uuid).Volumes);
    }

    [Fact]
    public async Task A_conversion_that_fails_leaves_a_volume_that_can_be_attached()
    {
        SimulatedDisk disk = new();
        await using DurablePlatform platform = DurablePlatform.OnOneDisk(disk);
        IVolumeStore volumes = platform.Platform.Volumes;
        await volumes.CreateAsync(Blank("data")).Guarded();
        Instance instance = await platform.Instances.CreateAsync(DurablePlatform.Request("kv") with { Autostart = false }).Guarded();
        disk.Faults = static (_, _) => new Fault.Error(28);
        await Assert.ThrowsAnyAsync<PlatformException>(() => volumes.ConvertAsync("data").Guarded());
        disk.Faults = null;

        Volume attached = await volumes.AttachAsync("data", new AttachVolumeRequest { Instance = instance.Uuid, At = "/data" }).Guarded();

        Assert.Equal(VolumeState.Idle, attached.State);
    }

    /// <remarks>Of a template, of a volume that nobody uses and of one that a guest has; cancelled when the disk is at the first call, and at each call before what is made is written down.</remarks>
    [Theory]
    [InlineData("golden")]
    [InlineData("idle")]
    [InlineData("used")]
    public async Task A_clone_that_is_cancelled_leaves_nothing(string source)
    {
        bool isDone = false;
        int cancelled = 0;
        for (int call = 0; !isDone; call++)
        {
            SimulatedDisk disk = new();
            await using DurablePlatform platform = DurablePlatform.OnOneDisk(disk);
            IVolumeStore volumes = platform.Platform.Volumes;
            await volumes.CreateAsync(Blank(source)).Guarded();
            switch (source)
            {
                case "golden":
                    await volumes.ConvertAsync(source).Guarded();
                    break;
                case "used":
                    await platform.Instances.CreateAsync(DurablePlatform.Request("kv") with
                    {
                        Name = "guest",
                        Volumes = [new InstanceVolume { Volume = source, At = "/data" }],
                        WaitTimeout = Timeout.InfiniteTimeSpan,
                    }).Guarded();
                    Assert.Equal("ok 1", await platform.AskAsync("guest", "put a 1"));
                    break;
            }

            await platform.Platform.WhenVolumesIdleAsync().Guarded();
            using CancellationTokenSource cancellation = new();
            disk.ResetCalls();
            int at = call;
            disk.Faults = (_, number) =>
            {
                if (number == at)
                {
                    cancellation.Cancel();
                }

                return null;
            };

            Exception? error = await Record.ExceptionAsync(() => (string.Equals(source, "golden", StringComparison.Ordinal)
                ? volumes.CreateAsync(new CreateVolumeRequest { Name = "clone", Template = source }, cancellation.Token)
                : volumes.CloneAsync(source, new CloneVolumeRequest { Name = "clone" }, cancellation.Token)).Guarded());

            disk.Faults = null;
            isDone = error is null;
            if (!isDone)
            {
                cancelled++;
                Assert.IsAssignableFrom<OperationCanceledException>(error);
                await platform.Platform.WhenVolumesIdleAsync().Guarded();
                Assert.Equal([source], volumes.List().Concat(volumes.ListTemplates()).Select(static volume => volume.Name));
                if (string.Equals(source, "used", StringComparison.Ordinal))
                {
                    Assert.Equal("ok 2", await platform.AskAsync("guest", "put b 2"));
                    Assert.StartsWith("check ok", await platform.AskAsync("guest", "check"), StringComparison.Ordinal);
                }

                // The name is free.
                await volumes.CreateAsync(Blank("clone")).Guarded();
            }
        }

        Assert.InRange(cancelled, 1, int.MaxValue);
    }

    [Fact]
    public async Task What_is_wrong_with_a_patch_is_said_by_its_task_and_the_disk_does_not_keep_the_caller()
    {
        SimulatedDisk disk = new();
        await using DurablePlatform platform = DurablePlatform.OnOneDisk(disk);
        IVolumeStore volumes = platform.Platform.Volumes;
        await volumes.CreateAsync(Blank("data")).Guarded();
        using CancellationTokenSource cancelled = new();
        await cancelled.CancelAsync();
        HashSet<int> threads = [];
        Task<Volume>[] wrong = [];
        int caller = 0;
        disk.Faults = (_, _) =>
        {
            lock (threads)
            {
                threads.Add(Environment.CurrentManagedThreadId);
            }

            return null;
        };

        // A thread of its own, which none of the pool is as long as it waits.
        await Task.Factory.StartNew(
            () =>
            {
                caller = Environment.CurrentManagedThreadId;
                wrong =
                [
                    volumes.PatchAsync("nowhere", [new PatchOperation.AddTags("a")]),
                    volumes.PatchAsync("data", [new PatchOperation.SetAutokill(new AutokillPolicy(TimeSpan.FromHours(1)))]),
                    volumes.PatchAsync("data", null!),
                    volumes.PatchAsync("data", [new PatchOperation.AddTags("a")], cancelled.Token),
                ];
                volumes.PatchAsync("data", [new PatchOperation.AddTags("b")]).Guarded().GetAwaiter().GetResult();
                volumes.CreateAsync(new CreateVolumeRequest { Name = "shared", HostPath = Path.GetTempPath() }).Guarded().GetAwaiter().GetResult();
            },
            CancellationToken.None,
            TaskCreationOptions.LongRunning,
            TaskScheduler.Default).Guarded();

        await Assert.ThrowsAsync<ResourceNotFoundException>(() => wrong[0]);
        await Assert.ThrowsAsync<InvalidRequestException>(() => wrong[1]);
        await Assert.ThrowsAsync<ArgumentNullException>(() => wrong[2]);
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => wrong[3]);
        Assert.Equal(["b"], volumes.Get("data").Tags);
        Assert.NotEmpty(threads);
        Assert.DoesNotContain(caller, threads);
    }

    /// <remarks>The second one is made while the first is on its way to the disk, where that fails.</remarks>
    [Fact]
    public async Task A_patch_that_fails_takes_no_other_along()
    {
        SimulatedDisk disk = new();
        await using DurablePlatform platform = DurablePlatform.OnOneDisk(disk);
        IVolumeStore volumes = platform.Platform.Volumes;
        await volumes.CreateAsync(Blank("data")).Guarded();
        TaskCompletionSource reached = new(TaskCreationOptions.RunContinuationsAsynchronously);
        TaskCompletionSource released = new(TaskCreationOptions.RunContinuationsAsynchronously);
        disk.Faults = (_, _) =>
        {
            if (!reached.TrySetResult())
            {
                return null;
            }

            released.Task.Wait();
            return new Fault.Error(28);
        };

        Task<Volume> failing = volumes.PatchAsync("data", [new PatchOperation.AddTags("failed")]);
        await reached.Task.Guarded();
        Task<Volume> next = volumes.PatchAsync("data", [new PatchOperation.AddTags("made")]);
        released.SetResult();
        await Assert.ThrowsAsync<StorageException>(() => failing.Guarded());
        await next.Guarded();

        Assert.Equal(["made"], volumes.Get("data").Tags);
        await platform.DisposeAsync();
        await using DurablePlatform after = DurablePlatform.OnOneDisk(disk);
        Assert.Equal(["made"], after.Platform.Volumes.Get("data").Tags);
    }

    /// <remarks>Each volume has an image beneath its top that nothing else needs, of which the disk is asked how large it is whenever it is looked for something to fold.</remarks>
    [Fact]
    public async Task A_deletion_asks_the_disk_as_much_however_many_other_volumes_there_are()
    {
        const int Count = 24;
        SimulatedDisk disk = new();
        await using DurablePlatform platform = DurablePlatform.OnOneDisk(disk);
        IVolumeStore volumes = platform.Platform.Volumes;
        for (int i = 0; i < Count; i++)
        {
            Volume volume = await volumes.CreateAsync(Blank($"data-{i}")).Guarded();
            Volume clone = await volumes.CloneAsync(volume.Uuid).Guarded();
            await volumes.DeleteAsync(clone.Uuid).Guarded();
            await platform.Instances.CreateAsync(DurablePlatform.Request("kv") with
            {
                Name = $"guest-{i}",
                Autostart = false,
                Volumes = [new InstanceVolume { Volume = volume.Uuid, At = "/data" }, new InstanceVolume { SizeMb = 8, Filesystem = VolumeFilesystem.None, At = "/own" }],
            }).Guarded();
        }

        List<int> asked = [];
        for (int i = 0; i < Count; i++)
        {
            await platform.Platform.WhenVolumesIdleAsync().Guarded();
            Assert.Equal(2, volumes.Get($"data-{i}").Depth);
            disk.ResetCalls();
            await platform.Instances.DeleteAsync($"guest-{i}").Guarded();
            await volumes.DeleteAsync($"data-{i}").Guarded();
            await platform.Platform.WhenVolumesIdleAsync().Guarded();
            asked.Add(disk.Calls.Count(static call => string.Equals(call, "Stat", StringComparison.Ordinal)));
        }

        Assert.Single(asked.Distinct());
    }

    private static CreateVolumeRequest Blank(string name) => new() { Name = name, SizeMb = 8, Filesystem = VolumeFilesystem.None };
}
