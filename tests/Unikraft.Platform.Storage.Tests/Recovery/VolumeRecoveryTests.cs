using System.Text.Json.Nodes;
using Unikraft.Platform.Contracts;
using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.InMemory;
using Unikraft.Platform.Storage.Tests.Testing;
using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Storage.Tests.Recovery;

/// <summary>Volumes of instances, checkpoints and templates after the process was killed: they go together with what has them, or say so.</summary>
public sealed class VolumeRecoveryTests : IDisposable
{
    private const string Journal = "volumes.journal";
    private const int Outdated = 1410;

    private readonly string _folder = Directory.CreateTempSubdirectory("volumes-").FullName;
    private int _copies;

    public void Dispose()
    {
        IReadOnlyList<string> problems = LeftImages.FindProblems(_folder);
        Directory.Delete(_folder, recursive: true);
        Assert.Empty(problems);
    }

    [Fact]
    public async Task An_instance_has_its_volumes_and_roms_again()
    {
        string rom = Path.Combine(_folder, "rom");
        await File.WriteAllBytesAsync(rom, new byte[512]);
        await using DurablePlatform before = New();
        await CreateVolumeAsync(before, "data");
        Instance running = await CreateKvAsync(before, "worker", Existing("data"), Owned("/scratch"), roms: [new InstanceRom { Name = "rom", Path = rom, At = "/rom" }]);
        Assert.Equal("ok 1", await AskAsync(before, "worker", "put colour blue"));
        await using DurablePlatform after = Kill(before);

        Assert.Equal(running.Volumes, after.Instances.Get("worker").Volumes);
        Assert.Equal(2, running.Volumes.Count);
        await after.Instances.StartAsync("worker").Guarded();
        Assert.Equal("value=blue", await AskAsync(after, "worker", "get colour"));
        Assert.StartsWith("check ok", await AskAsync(after, "worker", "check"), StringComparison.Ordinal);
        await after.Instances.DeleteAsync("worker").Guarded();
        Assert.Equal(["data"], after.Platform.Volumes.List().Select(volume => volume.Name));
    }

    [Fact]
    public async Task An_orderly_end_keeps_the_volumes_that_instances_own()
    {
        DurablePlatform before = New();
        await CreateKvAsync(before, "worker", Owned("/data"));
        Assert.Equal("ok 1", await AskAsync(before, "worker", "put colour blue"));
        await before.DisposeAsync();
        await using DurablePlatform after = Kill(before);

        await after.Instances.StartAsync("worker").Guarded();
        Assert.Equal("value=blue", await AskAsync(after, "worker", "get colour"));
    }

    [Fact]
    public async Task What_was_attached_and_detached_stays_so()
    {
        await using DurablePlatform before = New();
        await CreateVolumeAsync(before, "one");
        await CreateVolumeAsync(before, "two");
        await CreateVolumeAsync(before, "three");
        await CreateKvAsync(before, "worker", Existing("one"));
        await before.Instances.StopAsync("worker").Guarded();
        await before.Platform.Volumes.DetachAsync("one").Guarded();
        await before.Platform.Volumes.AttachAsync("two", new AttachVolumeRequest { Instance = "worker", At = "/two" }).Guarded();
        await before.Instances.StartAsync("worker").Guarded();
        await before.Platform.Volumes.AttachAsync("three", new AttachVolumeRequest { Instance = "worker", At = "/three", ReadOnly = true }).Guarded();
        await using DurablePlatform after = Kill(before);

        // It runs no more, so that nothing has to wait for its end.
        await after.Platform.WhenVolumesIdleAsync().Guarded();
        Assert.Empty(after.Platform.Volumes.Get("one").AttachedTo);
        Assert.Equal(["/two", "/three"], after.Instances.Get("worker").Volumes.Select(volume => volume.At));
        await after.Instances.StartAsync("worker").Guarded();
        Assert.Equal([("/two", false), ("/three", true)], after.Instances.Get("worker").Volumes.Select(volume => (volume.At, volume.ReadOnly)));
    }

    [Fact]
    public async Task A_start_opens_each_image_once_however_many_checkpoints_need_it()
    {
        const int Checkpoints = 12;
        SimulatedDisk disk = new();
        await using (DurablePlatform before = DurablePlatform.OnOneDisk(disk))
        {
            await CreateVolumeAsync(before, "data");
            await CreateKvAsync(before, "source", Existing("data"));
            for (int i = 0; i < Checkpoints; i++)
            {
                await before.AskAsync("source", $"put number {i}");
                await before.CheckpointAsync("source");
            }

            await before.Instances.StopAsync("source").Guarded();
            await before.Platform.WhenVolumesIdleAsync().Guarded();
        }

        disk.ResetCalls();
        await using DurablePlatform after = DurablePlatform.OnOneDisk(disk);
        int opened = disk.Calls.Count(static call => call is "OpenShared");

        Assert.Equal(Checkpoints, after.Platform.Volumes.ListTemplates().Count);
        Assert.Equal(disk.Files.Count(static file => file.EndsWith(".qcow2", StringComparison.Ordinal)), opened);
        Assert.InRange(opened, Checkpoints, int.MaxValue);
    }

    /// <remarks>It is tried again when the files of what was deleted before are gone; the volumes of the checkpoint are kept by then, and could not be let go of either.</remarks>
    [Fact]
    public async Task A_checkpoint_with_volumes_that_finds_no_room_twice_says_so()
    {
        await using DurablePlatform platform = new();
        await CreateVolumeAsync(platform, "data");
        await CreateKvAsync(platform, "source", Existing("data"));
        await platform.CheckpointAsync("source", "old");
        TaskCompletionSource removing = new(TaskCreationOptions.RunContinuationsAsynchronously);
        TaskCompletionSource released = new(TaskCreationOptions.RunContinuationsAsynchronously);
        bool isFull = false;
        int asked = 0;
        platform.Disk.Faults = (call, _) =>
        {
            if (call is "Delete" && removing.TrySetResult())
            {
                released.Task.Wait();
            }

            // Twice before anything is saved, and then by the backend.
            if (call is "FreeBytes" && removing.Task.IsCompleted && ++asked == 3)
            {
                isFull = true;
                released.SetResult();
            }

            return (call is "FreeBytes" && asked == 3) || (call is "Write" && isFull) ? new Fault.Error(28) : null;
        };
        await platform.Checkpoints.DeleteAsync("old").Guarded();
        await removing.Task.Guarded();

        Assert.True((await Assert.ThrowsAsync<StorageException>(() => platform.CheckpointAsync("source", "new"))).IsFull);

        platform.Disk.Faults = null;
        await using DurablePlatform after = platform.Kill();
        Assert.Empty(after.Checkpoints.List());
        await after.Platform.WhenVolumesIdleAsync().Guarded();
        Assert.Empty(after.Platform.Volumes.ListTemplates());
        await after.Instances.StartAsync("source").Guarded();
        await after.Instances.WaitAsync("source", InstanceState.Running).Guarded();
        await after.CheckpointAsync("source", "new");
    }

    [Fact]
    public async Task A_checkpoint_is_loaded_with_its_volumes_as_they_were()
    {
        await using DurablePlatform before = New();
        await CreateVolumeAsync(before, "data");
        await CreateKvAsync(before, "source", Existing("data"));
        Assert.Equal("ok 1", await AskAsync(before, "source", "put who both"));
        await before.CheckpointAsync("source", "point");
        Assert.Equal("ok 2", await AskAsync(before, "source", "put who source"));
        await using DurablePlatform after = Kill(before);

        Assert.Equal("/data", Assert.Single(after.Checkpoints.Get("point").Volumes).At);
        await after.Instances.CreateAsync(new CreateInstanceRequest { Name = "loaded", Checkpoint = "point", WaitTimeout = Timeout.InfiniteTimeSpan }).Guarded();
        Assert.Equal("value=both", await AskAsync(after, "loaded", "get who"));
        Assert.StartsWith("check ok", await AskAsync(after, "loaded", "check"), StringComparison.Ordinal);
        await after.Instances.StartAsync("source").Guarded();
        Assert.Equal("value=source", await AskAsync(after, "source", "get who"));
    }

    [Fact]
    public async Task A_template_is_cloned_with_its_volumes()
    {
        await using DurablePlatform before = New();
        await CreateKvAsync(before, "base", Owned("/data"));
        Assert.Equal("ok 1", await AskAsync(before, "base", "put who base"));
        await before.Templates.ConvertAsync("base").Guarded();
        await using DurablePlatform after = Kill(before);

        Instance clone = await after.Instances.CreateAsync(new CreateInstanceRequest { Template = "base", WaitTimeout = Timeout.InfiniteTimeSpan }).Guarded();
        Assert.Equal("value=base", await AskAsync(after, clone.Uuid, "get who"));
        Assert.Equal("ok 2", await AskAsync(after, clone.Uuid, "put who clone"));
        Assert.StartsWith("check ok", await AskAsync(after, clone.Uuid, "check"), StringComparison.Ordinal);
    }

    /// <remarks>What there is and whose the volumes are is written down in two places.</remarks>
    [Theory]
    [InlineData(Base.Running)]
    [InlineData(Base.Stopped)]
    [InlineData(Base.Suspended)]
    [InlineData(Base.SuspendedBeforeTheStart)]
    public async Task An_instance_that_becomes_a_template_has_its_volume_or_the_template_has_wherever_the_host_ends(Base state)
    {
        List<SimulatedDisk> left = [];
        SimulatedDisk disk = new();
        await using (DurablePlatform before = await CreateBaseAsync(disk, state))
        {
            disk.Faults = (_, _) =>
            {
                left.Add(disk.AfterKill());
                return null;
            };
            await before.Templates.ConvertAsync("base").Guarded();
            await before.Platform.WhenVolumesIdleAsync().Guarded();
            disk.Faults = null;
        }

        left.Add(disk.AfterKill());
        HashSet<bool> found = [];
        foreach (SimulatedDisk each in left)
        {
            found.Add(await CheckBaseAsync(each, $"call {left.IndexOf(each)}"));
        }

        Assert.Equal(2, found.Count);
    }

    [Theory]
    [InlineData(Base.Running)]
    [InlineData(Base.SuspendedBeforeTheStart)]
    public async Task An_instance_that_becomes_a_template_has_its_volume_or_the_template_has_whatever_fails(Base state)
    {
        int failed = 0;
        bool isReached;
        for (int call = 0; ; call++)
        {
            SimulatedDisk disk = new();
            await using DurablePlatform platform = await CreateBaseAsync(disk, state);
            disk.ResetCalls();

            // From there on, until it is over: nothing can be made good.
            int from = call;
            disk.Faults = (_, number) => number >= from ? new Fault.Error(5) : null;
            failed += await Record.ExceptionAsync(() => platform.Templates.ConvertAsync("base").Guarded()) is StorageException ? 1 : 0;
            isReached = disk.Calls.Count > call;
            if (platform.Templates.List().Count > 0)
            {
                // Nobody writes to what the next start gives to the template.
                Assert.All(platform.Platform.Volumes.List(), static volume => Assert.NotNull(volume.Error));
            }

            SimulatedDisk left = disk.AfterKill();
            disk.Faults = null;
            await CheckBaseAsync(left, $"failing from call {call} on");
            if (!isReached)
            {
                break;
            }
        }

        Assert.InRange(failed, 5, int.MaxValue);
    }

    [Fact]
    public async Task A_template_has_the_same_volume_before_and_after_a_restart()
    {
        await using DurablePlatform before = New();
        Instance instance = await CreateKvAsync(before, "base", Owned("/data"));
        AttachedVolume volume = Assert.Single(instance.Volumes);
        await before.Templates.ConvertAsync("base").Guarded();
        await before.Platform.WhenVolumesIdleAsync().Guarded();
        Assert.Equal(volume.Uuid, Assert.Single(before.Templates.Get("base").Volumes).Uuid);
        await using DurablePlatform after = Kill(before);

        Assert.Equal(volume.Uuid, Assert.Single(after.Templates.Get("base").Volumes).Uuid);
        await after.Instances.CreateAsync(new CreateInstanceRequest { Template = "base", WaitTimeout = Timeout.InfiniteTimeSpan }).Guarded();
        Assert.Equal(volume.Uuid, Assert.Single(after.Templates.Get("base").Volumes).Uuid);
        Assert.Equal(volume.Uuid, Assert.Single(after.Platform.Volumes.ListTemplates()).Uuid);
        await after.Instances.DeleteAsync(after.Instances.List()[0].Uuid).Guarded();
        await after.Templates.DeleteAsync("base").Guarded();
        await after.DisposeAsync();
        await using DurablePlatform last = Kill(after);
        Assert.Empty(last.Platform.Volumes.ListTemplates());
    }

    /// <remarks>Also what else continues from the same snapshot has the volumes themselves then, open or not.</remarks>
    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task An_instance_that_was_suspended_before_the_start_gives_its_volumes_to_the_template(bool isOpen)
    {
        await using DurablePlatform before = New();
        await CreateVolumeAsync(before, "data");
        Instance instance = await CreateKvAsync(before, "base", Existing("data"), Owned("/own"));
        Guid[] volumes = [.. instance.Volumes.Select(static volume => volume.Uuid)];
        Assert.Equal("ok 1", await AskAsync(before, "base", "put who base"));
        await before.Instances.SuspendAsync("base").Guarded();
        await before.CheckpointAsync("base", "point");
        await using DurablePlatform between = Kill(before);
        if (isOpen)
        {
            await between.Instances.CreateAsync(new CreateInstanceRequest { Name = "early", Checkpoint = "point", WaitTimeout = Timeout.InfiniteTimeSpan }).Guarded();
        }

        Template made = await between.Templates.ConvertAsync("base").Guarded();
        await between.Platform.WhenVolumesIdleAsync().Guarded();

        Assert.Equal(volumes, made.Volumes.Select(static volume => volume.Uuid));
        Check(between, instances: isOpen ? 2 : 0);
        await using DurablePlatform after = Kill(between);
        Check(after, instances: isOpen ? 2 : 0);
        foreach (CreateInstanceRequest request in (CreateInstanceRequest[])[new() { Template = "base" }, new() { Checkpoint = "point" }])
        {
            Instance clone = await after.Instances.CreateAsync(request with { WaitTimeout = Timeout.InfiniteTimeSpan }).Guarded();
            Assert.Equal("value=base", await AskAsync(after, clone.Uuid, "get who"));
            Assert.Equal("ok 2", await AskAsync(after, clone.Uuid, "put who clone"));
            await after.Instances.DeleteAsync(clone.Uuid).Guarded();
        }

        await after.Templates.DeleteAsync("base").Guarded();
        await after.Platform.WhenVolumesIdleAsync().Guarded();
        Assert.Equal(2, after.Platform.Volumes.ListTemplates().Count);
        await after.Checkpoints.DeleteAsync("point").Guarded();
        await after.Platform.WhenVolumesIdleAsync().Guarded();
        Assert.Empty(after.Platform.Volumes.ListTemplates());

        void Check(DurablePlatform platform, int instances)
        {
            Assert.Equal(volumes, platform.Templates.Get("base").Volumes.Select(static volume => volume.Uuid));
            Assert.Equal(volumes, platform.Checkpoints.Get("point").Volumes.Select(static volume => volume.Uuid));
            Assert.Equal(volumes.Order(), platform.Platform.Volumes.ListTemplates().Select(static volume => volume.Uuid).Order());
            Assert.Equal(instances, platform.Platform.Volumes.List().Count);
        }
    }

    /// <remarks>Others read it as well: the template has a copy of its own.</remarks>
    [Fact]
    public async Task A_volume_that_others_read_stays_beside_the_template_of_a_suspended_instance()
    {
        await using DurablePlatform before = New();
        await CreateVolumeAsync(before, "data");
        await CreateKvAsync(before, "base", Existing("data") with { ReadOnly = true });
        await before.Instances.SuspendAsync("base").Guarded();
        await using DurablePlatform after = Kill(before);
        await CreateKvAsync(after, "reader", Existing("data") with { ReadOnly = true });

        Template made = await after.Templates.ConvertAsync("base").Guarded();
        await after.Platform.WhenVolumesIdleAsync().Guarded();

        Volume data = after.Platform.Volumes.Get("data");
        Assert.NotEqual(data.Uuid, Assert.Single(made.Volumes).Uuid);
        Assert.Equal((VolumeState.Mounted, null), (data.State, data.Error));
        Assert.Equal("reader", Assert.Single(data.AttachedTo).InstanceName);
    }

    [Fact]
    public async Task A_checkpoint_of_an_instance_that_does_not_run_has_its_volumes()
    {
        await using DurablePlatform before = New();
        await CreateKvAsync(before, "source", Owned("/data"));
        Assert.Equal("ok 1", await AskAsync(before, "source", "put who both"));
        await before.Instances.StopAsync("source").Guarded();
        Checkpoint taken = await before.CheckpointAsync("source", "point");
        await before.Instances.StartAsync("source").Guarded();
        Assert.Equal("ok 2", await AskAsync(before, "source", "put who source"));
        await using DurablePlatform after = Kill(before);

        Checkpoint found = after.Checkpoints.Get("point");
        Assert.Equal(Assert.Single(taken.Volumes), Assert.Single(found.Volumes));
        Assert.Equal("/data", found.Volumes[0].At);
        await LoadAsync(after, "first");
        Assert.Equal("value=both", await AskAsync(after, "first", "get who"));
        Assert.Equal("ok 2", await AskAsync(after, "first", "put who first"));
        await using DurablePlatform last = Kill(after);

        // What has been written since is not taken back, and what was kept is still what it was.
        await last.Instances.StartAsync("first").Guarded();
        Assert.Equal("value=first", await AskAsync(last, "first", "get who"));
        await LoadAsync(last, "second");
        Assert.Equal("value=both", await AskAsync(last, "second", "get who"));
        await last.Instances.StartAsync("source").Guarded();
        Assert.Equal("value=source", await AskAsync(last, "source", "get who"));

        static Task<Instance> LoadAsync(DurablePlatform platform, string name) => platform.Instances
            .CreateAsync(new CreateInstanceRequest { Name = name, Checkpoint = "point", WaitTimeout = Timeout.InfiniteTimeSpan })
            .Guarded();
    }

    [Fact]
    public async Task A_suspended_instance_resumes_with_the_volume_that_it_had()
    {
        await using DurablePlatform before = New();
        await CreateKvAsync(before, "worker", Owned("/data"));
        Assert.Equal("ok 1", await AskAsync(before, "worker", "put colour blue"));
        await before.Instances.SuspendAsync("worker").Guarded();
        await using DurablePlatform after = Kill(before);

        Assert.True(after.Instances.Get("worker").HasSnapshot);
        await after.Instances.StartAsync("worker").Guarded();
        Assert.Equal("ok 2", await AskAsync(after, "worker", "put shape round"));
        Assert.Equal("check ok records=2 keys=2 last=2", await AskAsync(after, "worker", "check"));
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task Memory_is_not_put_together_with_a_volume_that_was_written_to_since(bool isLastRecordLost)
    {
        await using DurablePlatform before = New();
        await CreateKvAsync(before, "worker", Owned("/data"));
        Assert.Equal("ok 1", await AskAsync(before, "worker", "put colour blue"));
        await before.Instances.SuspendAsync("worker").Guarded();
        SimulatedDisk suspended = before.Disk.AfterKill();
        await before.Instances.StartAsync("worker").Guarded();
        Assert.Equal("ok 2", await AskAsync(before, "worker", "put colour red"));
        await using DurablePlatform after = Kill(before, isLastRecordLost ? suspended : null);

        Assert.Contains(after.Logs.Records, record => record.Id.Id == Outdated);
        Assert.False(after.Instances.Get("worker").HasSnapshot);
        await after.Instances.StartAsync("worker").Guarded();
        Assert.Equal("value=red", await AskAsync(after, "worker", "get colour"));
        Assert.Equal("check ok records=2 keys=1 last=2", await AskAsync(after, "worker", "check"));
    }

    [Fact]
    public async Task What_a_clone_has_flushed_is_not_lost()
    {
        await using DurablePlatform before = New();
        await CreateKvAsync(before, "source", Owned("/data"));
        await before.CheckpointAsync("source", "point");
        await before.Instances.CreateAsync(new CreateInstanceRequest { Name = "clone", Checkpoint = "point", WaitTimeout = Timeout.InfiniteTimeSpan }).Guarded();
        Assert.Equal("ok 1", await AskAsync(before, "clone", "put colour blue"));
        await using DurablePlatform after = Kill(before);

        await after.Instances.StartAsync("clone").Guarded();
        Assert.Equal("value=blue", await AskAsync(after, "clone", "get colour"));
    }

    [Fact]
    public async Task Volumes_of_an_instance_that_never_came_to_be_are_removed()
    {
        await using DurablePlatform before = New();
        SimulatedDisk empty = before.Disk.AfterKill();
        await CreateVolumeAsync(before, "data");
        await CreateKvAsync(before, "worker", Existing("data"), Owned("/scratch"));
        await before.CheckpointAsync("worker", "point");
        await using DurablePlatform after = Kill(before, empty);
        await after.Platform.WhenVolumesIdleAsync().Guarded();

        Volume left = Assert.Single(after.Platform.Volumes.List());
        Assert.Equal(("data", VolumeState.Available), (left.Name, left.State));
        Assert.Empty(after.Platform.Volumes.ListTemplates());
        await CreateKvAsync(after, "again", Existing("data"));
        Assert.Equal("keys=0 last=0", await AskAsync(after, "again", "count"));
    }

    [Fact]
    public async Task An_instance_whose_volume_is_lost_says_so_and_the_rest_goes_on()
    {
        await using DurablePlatform before = New();
        await CreateVolumeAsync(before, "other");
        string old = CopyVolumes(before);
        Instance lost = await CreateKvAsync(before, "lost", Owned("/data"));
        await CreateKvAsync(before, "sound", Existing("other"));
        await using DurablePlatform after = New(before.Disk.AfterKill(), old);

        DataDamageException error = await Assert.ThrowsAsync<DataDamageException>(() => after.Instances.StartAsync("lost")).Guarded();
        Assert.Equal([lost.Uuid], error.Dependents);
        Assert.Equal(Path.Combine(old, Journal), error.Path);
        await after.Instances.StartAsync("sound").Guarded();
        Assert.Equal("ok 1", await AskAsync(after, "sound", "put a 1"));
        await after.Instances.DeleteAsync("lost").Guarded();
    }

    [Fact]
    public async Task Volumes_are_in_the_data_directory_unless_one_is_named_for_them_and_move_with_it()
    {
        string here = Path.Combine(_folder, "here");
        string there = Path.Combine(_folder, "there");
        await using (UnikraftPlatform before = OnHost(here))
        {
            await CreateKvAsync(before.Instances, "worker", Owned("/data"));
            Assert.Equal("ok 1", await AskAsync(before.Instances, "worker", "put colour blue"));
        }

        Directory.Move(here, there);
        await using UnikraftPlatform after = OnHost(there);
        await after.Instances.StartAsync("worker").Guarded();
        Assert.Equal("value=blue", await AskAsync(after.Instances, "worker", "get colour"));
    }

    [Fact]
    public async Task The_name_of_an_image_is_on_the_disk_before_anything_there_refers_to_it()
    {
        string folder = Path.Combine(_folder, "synced");
        NoticedSyncs syncs = new(Path.Combine(folder, "volumes"));
        await using (UnikraftPlatform platform = OnHost(folder, syncs))
        {
            await CreateKvAsync(platform.Instances, "source", Owned("/data"));
            await platform.Checkpoints.CreateAsync(new CreateCheckpointRequest { From = "source", Name = "point", WaitTimeout = Timeout.InfiniteTimeSpan }).Guarded();
            await platform.Instances.CreateAsync(new CreateInstanceRequest { Name = "clone", Checkpoint = "point", WaitTimeout = Timeout.InfiniteTimeSpan }).Guarded();
            await platform.WhenVolumesIdleAsync().Guarded();
            string[] tops = [.. TopsIn(Path.Combine(folder, "volumes", Journal))];
            Assert.True(tops.Length >= 3, string.Join(' ', tops));
            Assert.Empty(tops.Except(syncs.Names, StringComparer.Ordinal));
        }
    }

    private static async Task<DurablePlatform> CreateBaseAsync(SimulatedDisk disk, Base state)
    {
        DurablePlatform platform = new(disk);
        await CreateVolumeAsync(platform, "data");
        await CreateKvAsync(platform, "base", Existing("data"));
        Assert.Equal("ok 1", await AskAsync(platform, "base", "put who base"));
        switch (state)
        {
            case Base.Stopped:
                await platform.Instances.StopAsync("base").Guarded();
                break;
            case Base.Suspended or Base.SuspendedBeforeTheStart:
                await platform.Instances.SuspendAsync("base").Guarded();
                break;
        }

        if (state != Base.SuspendedBeforeTheStart)
        {
            return platform;
        }

        await platform.DisposeAsync();
        return new DurablePlatform(disk);
    }

    /// <returns>Whether there is a template.</returns>
    private static async Task<bool> CheckBaseAsync(SimulatedDisk left, string context)
    {
        await using DurablePlatform after = new(left);
        await after.Platform.WhenVolumesIdleAsync().Guarded();
        bool isTemplate = after.Templates.List().Count > 0;
        string found = $"instances {after.Instances.List().Count}, templates {after.Templates.List().Count}, volumes {after.Platform.Volumes.List().Count(static volume => volume.State != VolumeState.Template)}";
        Assert.Equal($"{context}: {(isTemplate ? "instances 0, templates 1, volumes 0" : "instances 1, templates 0, volumes 1")}", $"{context}: {found}");
        Assert.Empty(await after.Platform.Data!.VerifyAsync().Guarded());
        if (isTemplate)
        {
            await after.Instances.CreateAsync(new CreateInstanceRequest { Name = "made", Template = "base", WaitTimeout = Timeout.InfiniteTimeSpan }).Guarded();
        }
        else
        {
            await after.Instances.StartAsync("base").Guarded();
        }

        Assert.Equal("value=base", await AskAsync(after, isTemplate ? "made" : "base", "get who"));
        return isTemplate;
    }

    private static InstanceVolume Existing(string name) => new() { Volume = name, At = "/data" };

    private static InstanceVolume Owned(string at) => new() { SizeMb = 8, Filesystem = VolumeFilesystem.None, At = at };

    private static Task<Volume> CreateVolumeAsync(DurablePlatform platform, string name) => platform.Platform.Volumes
        .CreateAsync(new CreateVolumeRequest { Name = name, SizeMb = 8, Filesystem = VolumeFilesystem.None })
        .Guarded();

    private static Task<Instance> CreateKvAsync(DurablePlatform platform, string name, params InstanceVolume[] volumes) => CreateKvAsync(platform.Instances, name, volumes);

    private static Task<Instance> CreateKvAsync(IInstanceManager instances, string name, params InstanceVolume[] volumes) =>
        instances.CreateAsync(Request(name, volumes)).Guarded();

    private static Task<Instance> CreateKvAsync(DurablePlatform platform, string name, InstanceVolume first, InstanceVolume second, IReadOnlyList<InstanceRom> roms) =>
        platform.Instances.CreateAsync(Request(name, [first, second]) with { Roms = roms }).Guarded();

    private static CreateInstanceRequest Request(string name, IReadOnlyList<InstanceVolume> volumes) =>
        DurablePlatform.Request("kv") with { Name = name, Volumes = volumes, WaitTimeout = Timeout.InfiniteTimeSpan };

    private static Task<string> AskAsync(DurablePlatform platform, NameOrUuid instance, string command) => AskAsync(platform.Instances, instance, command);

    private static async Task<string> AskAsync(IInstanceManager instances, NameOrUuid instance, string command)
    {
        await using ConsoleSession console = new(instances.AttachConsole(instance));
        await console.WriteLineAsync(command);
        string? line;
        do
        {
            line = await console.ReadLineAsync();
        }
        while (line?.StartsWith("kv ", StringComparison.Ordinal) is true);
        return line ?? "";
    }

    private static IEnumerable<string> TopsIn(string journal)
    {
        using FileStream file = new(journal, FileMode.Open, FileAccess.Read, FileShare.ReadWrite);
        using StreamReader reader = new(file);
        return
        [
            .. reader.ReadToEnd().TrimEnd('\0').Split('\n').Skip(1).Where(line => line.Length > 0)
                .SelectMany(line => (JsonNode.Parse(line[line.IndexOf('{', StringComparison.Ordinal)..])!["Set"] as JsonArray)?.Select(record => (string?)record!["Top"]) ?? [])
                .OfType<string>(),
        ];
    }

    private static UnikraftPlatform OnHost(string folder, IDirectorySync? syncs = null) => new(
        new PlatformOptions { DataDirectory = folder, MinFreeDiskBytes = 0 },
        new ManualTimeProvider(),
        new ListLoggerFactory(),
        context => new WrappedHypervisor(new InMemoryHypervisor(new InMemoryHypervisorOptions(), context)) { Directories = syncs });

    private DurablePlatform New(SimulatedDisk? disk = null, string? volumes = null) =>
        new(disk, options => options.VolumeDirectory = volumes ?? Path.Combine(_folder, "volumes"));

    // What the next process finds when this one is killed now.
    private DurablePlatform Kill(DurablePlatform platform, SimulatedDisk? disk = null) => New(disk ?? platform.Disk.AfterKill(), CopyVolumes(platform));

    private string CopyVolumes(DurablePlatform platform)
    {
        string to = Path.Combine(_folder, $"copy{++_copies}");
        KilledFolder.Copy(platform.VolumeDirectory!, to);
        return to;
    }

    /// <summary>What an instance was when it became a template.</summary>
    public enum Base
    {
        /// <summary>It ran.</summary>
        Running,

        /// <summary>It was stopped.</summary>
        Stopped,

        /// <summary>It was suspended.</summary>
        Suspended,

        /// <summary>It was suspended, and the host has been started since.</summary>
        SuspendedBeforeTheStart,
    }

    private sealed class NoticedSyncs(string folder) : IDirectorySync
    {
        private readonly Lock _lock = new();
        private readonly HashSet<string> _names = new(StringComparer.Ordinal);
        private volatile bool _isNamed;

        internal IReadOnlyCollection<string> Names
        {
            get
            {
                lock (_lock)
                {
                    return [.. _names];
                }
            }
        }

        public void Sync(string path)
        {
            if (!string.Equals(path, folder, StringComparison.Ordinal))
            {
                _isNamed |= string.Equals(path, Path.GetDirectoryName(folder), StringComparison.Ordinal) && Directory.Exists(folder);
                return;
            }

            // A name in a directory without one is lost with it.
            Assert.True(_isNamed);
            lock (_lock)
            {
                _names.UnionWith(Directory.EnumerateFiles(folder).Select(file => Path.GetFileName(file)!));
            }

            // What the journal says already was to be on the disk before.
            Assert.Empty(File.Exists(Path.Combine(folder, Journal)) ? TopsIn(Path.Combine(folder, Journal)).Except(Names, StringComparer.Ordinal) : []);
        }
    }
}
