using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Contracts;

/// <content>Volumes of instances, and what becomes of them in branches, checkpoints and templates.</content>
public abstract partial class PlatformContract
{
    private const string BranchNeedsBlocks =
        "Branching only works with block-based volumes (for example, `ext4`). The branch clones the source's volume state consistently with its memory snapshot, "
        + "which isn't supported for other volume types.";

    private const string CheckpointNeedsBlocks =
        "Checkpointing builds on branching, so it only works with block-based volumes (for example, `ext4`). The checkpoint clones the source's volume state "
        + "consistently with its memory snapshot, which isn't supported for other volume types.";

    /// <summary>Its volumes.</summary>
    protected IVolumeStore Volumes => Platform.Volumes;

    [ContractFact]
    public async Task A_volume_outlives_the_instances_that_write_to_it()
    {
        Volume volume = await Volumes.CreateAsync(Blank("data")).Guarded();
        Assert.Equal((VolumeState.Available, 8, true, "data"), (volume.State, volume.SizeMb, volume.Persistent, volume.Name));
        Instance first = await CreateKvAsync(Existing("data"));
        Assert.Equal([new AttachedVolume(volume.Uuid, "data", "/data", ReadOnly: false)], first.Volumes);
        Assert.Equal(VolumeState.Mounted, Volumes.Get("data").State);
        Assert.Equal("ok 1", await AskKvAsync(first, "put colour blue"));
        await Instances.StopAsync(first.Uuid).Guarded();
        await Instances.StartAsync(first.Uuid).Guarded();
        Assert.Equal("value=blue", await AskKvAsync(first, "get colour"));
        await Instances.DeleteAsync(first.Uuid).Guarded();
        Assert.Equal(VolumeState.Available, Volumes.Get("data").State);

        Instance second = await CreateKvAsync(Existing(volume.Uuid));

        Assert.Equal("value=blue", await AskKvAsync(second, "get colour"));
        Assert.StartsWith("check ok", await AskKvAsync(second, "check"), StringComparison.Ordinal);
    }

    [ContractFact]
    public async Task A_branch_has_volumes_of_its_own_from_the_moment_of_the_cut()
    {
        await Volumes.CreateAsync(Blank("data")).Guarded();
        Instance source = await CreateKvAsync(Existing("data"));
        Assert.Equal("ok 1", await AskKvAsync(source, "put who both"));

        Instance branch = await Instances.CreateAsync(new CreateInstanceRequest { BranchFrom = source.Uuid, WaitTimeout = Timeout.InfiniteTimeSpan }).Guarded();

        Assert.Equal("ok 2", await AskKvAsync(source, "put who source"));
        Assert.Equal("ok 2", await AskKvAsync(branch, "put who branch"));
        Assert.Equal("value=source", await AskKvAsync(source, "get who"));
        Assert.Equal("value=branch", await AskKvAsync(branch, "get who"));
        Assert.StartsWith("check ok", await AskKvAsync(source, "check"), StringComparison.Ordinal);
        Assert.StartsWith("check ok", await AskKvAsync(branch, "check"), StringComparison.Ordinal);
        AttachedVolume own = Assert.Single(branch.Volumes);
        Assert.Equal((null, "/data"), (own.Name, own.At));
        Assert.NotEqual(source.Volumes[0].Uuid, own.Uuid);
        Volume volume = Volumes.Get(own.Uuid);
        Assert.Equal((false, VolumeState.Mounted), (volume.Persistent, volume.State));

        // What the branch has survives its stop, and goes with it.
        await Instances.StopAsync(branch.Uuid).Guarded();
        Assert.Equal(VolumeState.Idle, Volumes.Get(own.Uuid).State);
        await Instances.StartAsync(branch.Uuid).Guarded();
        Assert.Equal("value=branch", await AskKvAsync(branch, "get who"));
        await Instances.DeleteAsync(branch.Uuid).Guarded();
        Assert.Throws<ResourceNotFoundException>(() => Volumes.Get(own.Uuid));
    }

    [ContractFact]
    public async Task A_branch_of_a_stopped_instance_carries_its_volumes()
    {
        Instance source = await CreateKvAsync(Owned());
        Assert.Equal("ok 1", await AskKvAsync(source, "put a 1"));
        await Instances.StopAsync(source.Uuid).Guarded();
        Instance branch = await Instances.CreateAsync(new CreateInstanceRequest { BranchFrom = source.Uuid, Autostart = false }).Guarded();
        await Instances.StartAsync(source.Uuid).Guarded();
        Assert.Equal("ok 2", await AskKvAsync(source, "put a 2"));
        await Instances.DeleteAsync(source.Uuid).Guarded();

        await Instances.StartAsync(branch.Uuid).Guarded();

        Assert.Equal("value=1", await AskKvAsync(branch, "get a"));
    }

    [ContractFact]
    public async Task Each_load_of_a_checkpoint_has_its_own_volumes_and_needs_nothing_of_the_source()
    {
        Instance source = await CreateKvAsync(Owned());
        Assert.Equal("ok 1", await AskKvAsync(source, "put a checkpoint"));
        Checkpoint checkpoint = await Checkpoints
            .CreateAsync(new CreateCheckpointRequest { From = source.Uuid, Name = "point", WaitTimeout = Timeout.InfiniteTimeSpan })
            .Guarded();
        AttachedVolume kept = Assert.Single(checkpoint.Volumes);
        Assert.Equal(VolumeState.Template, Volumes.Get(kept.Uuid).State);
        Assert.Contains(Volumes.ListTemplates(), volume => volume.Uuid == kept.Uuid);
        await Assert.ThrowsAsync<VolumeBusyException>(() => Volumes.DeleteAsync(kept.Uuid));
        Assert.Equal("ok 2", await AskKvAsync(source, "put a later"));
        await Instances.DeleteAsync(source.Uuid).Guarded();

        Instance[] loads =
        [
            await LoadAsync("point"),
            await LoadAsync("point"),
        ];

        foreach (Instance load in loads)
        {
            Assert.Equal("value=checkpoint", await AskKvAsync(load, "get a"));
            Assert.Equal("ok 2", await AskKvAsync(load, $"put a {load.Name}"));
        }

        await Checkpoints.DeleteAsync("point").Guarded();
        foreach (Instance load in loads)
        {
            Assert.Equal($"value={load.Name}", await AskKvAsync(load, "get a"));
            Assert.StartsWith("check ok", await AskKvAsync(load, "check"), StringComparison.Ordinal);
        }
    }

    [ContractFact]
    public async Task A_template_takes_the_volumes_of_its_instance_along()
    {
        Volume data = await Volumes.CreateAsync(Blank("data")).Guarded();
        Instance source = await CreateKvAsync(Existing("data"));
        Assert.Equal("ok 1", await AskKvAsync(source, "put a template"));

        Template template = await Platform.Templates.ConvertAsync(source.Uuid).Guarded();

        Assert.Equal([new AttachedVolume(data.Uuid, "data", "/data", ReadOnly: false)], template.Volumes);
        Assert.Empty(Volumes.List());
        Assert.Equal(VolumeState.Template, Volumes.Get("data").State);
        Instance clone = await Instances
            .CreateAsync(new CreateInstanceRequest { Template = template.Uuid, WaitTimeout = Timeout.InfiniteTimeSpan })
            .Guarded();
        Assert.Equal("value=template", await AskKvAsync(clone, "get a"));
        Assert.Equal("ok 2", await AskKvAsync(clone, "put a clone"));
        await Platform.Templates.DeleteAsync(template.Uuid).Guarded();
        Assert.Equal("value=clone", await AskKvAsync(clone, "get a"));
    }

    [ContractFact]
    public async Task Attaching_and_detaching_wait_for_a_stop()
    {
        await Volumes.CreateAsync(Blank("data")).Guarded();
        await Volumes.CreateAsync(Blank("more")).Guarded();

        // A guest that does not end when its disk is gone.
        Instance instance = await Instances
            .CreateAsync(Request("counter", "--period-ms", "0") with { Volumes = [Existing("data")], WaitTimeout = Timeout.InfiniteTimeSpan })
            .Guarded();

        Volume more = await Volumes.AttachAsync("more", new AttachVolumeRequest { Instance = instance.Uuid, At = "/more" }).Guarded();
        Volume data = await Volumes.DetachAsync("data", instance.Uuid).Guarded();

        Assert.Equal((VolumeUpdate.Attach, VolumeState.Available), (Assert.Single(more.AttachedTo).Pending, more.State));
        Assert.Equal((VolumeUpdate.Detach, VolumeState.Mounted), (Assert.Single(data.AttachedTo).Pending, data.State));
        Assert.Equal("/data", Assert.Single(Instances.Get(instance.Uuid).Volumes).At);
        await Instances.StopAsync(instance.Uuid).Guarded();
        await Instances.StartAsync(instance.Uuid).Guarded();
        Assert.Equal("/more", Assert.Single(Instances.Get(instance.Uuid).Volumes).At);
        Assert.Equal(VolumeState.Mounted, Volumes.Get("more").State);
        Assert.Equal(VolumeState.Available, Volumes.Get("data").State);
        await Instances.StopAsync(instance.Uuid).Guarded();

        // Nothing waits for an instance that is stopped.
        await Volumes.AttachAsync("data", new AttachVolumeRequest { Instance = instance.Uuid, At = "/data" }).Guarded();
        Assert.Equal(VolumeState.Idle, Volumes.Get("data").State);
        await Volumes.DetachAsync("data").Guarded();
        Assert.Equal(VolumeState.Available, Volumes.Get("data").State);
    }

    [ContractFact]
    public async Task A_volume_in_use_is_cloned_as_it_is_at_the_moment()
    {
        await Volumes.CreateAsync(Blank("data")).Guarded();
        Instance source = await CreateKvAsync(Existing("data"));
        Assert.Equal("ok 1", await AskKvAsync(source, "put a 1"));

        Volume clone = await Volumes.CloneAsync("data", new CloneVolumeRequest { Name = "copy" }).Guarded();

        Assert.Equal("ok 2", await AskKvAsync(source, "put a 2"));
        Assert.Equal((VolumeState.Available, 8, true), (clone.State, clone.SizeMb, clone.Persistent));
        Instance second = await CreateKvAsync(Existing("copy"));
        Assert.Equal("value=1", await AskKvAsync(second, "get a"));
        Assert.Equal("ok 2", await AskKvAsync(second, "put a 3"));
        await Instances.DeleteAsync(source.Uuid).Guarded();
        await Volumes.DeleteAsync("data").Guarded();
        Assert.StartsWith("check ok", await AskKvAsync(second, "check"), StringComparison.Ordinal);
    }

    [ContractFact]
    public async Task Instances_with_other_than_block_volumes_are_refused_what_needs_blocks()
    {
        DirectoryInfo directory = Directory.CreateTempSubdirectory("unikraft-shared-");
        try
        {
            Volume shared = await Volumes.CreateAsync(new CreateVolumeRequest { Name = "shared", HostPath = directory.FullName }).Guarded();
            Assert.Equal((VolumeFilesystem.Virtiofs, directory.FullName, 0), (shared.Filesystem, shared.HostPath, shared.SizeMb));
            Instance instance = await Instances.CreateAsync(Request("kv") with { Volumes = [Existing("shared")], Autostart = false }).Guarded();

            await FailsAsync<PlatformException>(
                BranchNeedsBlocks,
                () => Instances.CreateAsync(new CreateInstanceRequest { BranchFrom = instance.Uuid }));
            await FailsAsync<PlatformException>(
                CheckpointNeedsBlocks,
                () => Checkpoints.CreateAsync(new CreateCheckpointRequest { From = instance.Uuid }));
            PlatformException refused = await Assert.ThrowsAsync<PlatformException>(() => Instances.StartAsync(instance.Uuid));
            Assert.Equal(PlatformErrorCode.UnsupportedVolume, refused.Code);
            Assert.Empty(Checkpoints.List());
            await Assert.ThrowsAsync<InvalidRequestException>(() => Volumes.CloneAsync("shared"));
        }
        finally
        {
            directory.Delete(recursive: true);
        }
    }

    [ContractFact]
    public async Task Bad_requests_about_volumes_leave_nothing_behind()
    {
        await Volumes.CreateAsync(Blank("data")).Guarded();
        InstanceVolume[] five = [.. Enumerable.Range(0, 5).Select(index => Owned() with { At = $"/v{index}" })];
        CreateInstanceRequest[] bad =
        [
            Request("kv") with { Volumes = five },
            Request("kv") with { Volumes = [Existing("data"), Existing("nowhere") with { At = "/b" }] },
            Request("kv") with { Volumes = [Existing("data"), Owned()] },
            Request("kv") with { Volumes = [Existing("data") with { At = "relative" }] },
            Request("kv") with { Volumes = [Existing("data") with { At = "/a/../b" }] },
            Request("kv") with { Volumes = [Existing("data") with { At = "/a:b" }] },
            Request("kv") with { Volumes = [Existing("data") with { SizeMb = 5 }] },
            Request("kv") with { Volumes = [Owned() with { SizeMb = 0 }] },
            Request("kv") with { Roms = [new InstanceRom { Name = "rom", Path = "/nonexistent/rom" }], Volumes = [Existing("data")] },
        ];
        foreach (CreateInstanceRequest request in bad)
        {
            await Assert.ThrowsAnyAsync<PlatformException>(() => Instances.CreateAsync(request));
        }

        Assert.Empty(Instances.List());
        Volume data = Assert.Single(Volumes.List());
        Assert.Equal((VolumeState.Available, 0), (data.State, data.AttachedTo.Count));
        Instance user = await CreateKvAsync(Existing("data"));
        VolumeBusyException busy = await Assert.ThrowsAsync<VolumeBusyException>(() => Instances.CreateAsync(Request("kv") with { Volumes = [Existing("data")] }));
        Assert.Equal(data.Uuid, busy.Volume);
        await Assert.ThrowsAsync<VolumeBusyException>(() => Volumes.DeleteAsync("data"));
        await Assert.ThrowsAsync<VolumeBusyException>(() => Volumes.ResizeAsync("data", 16));
        await Assert.ThrowsAsync<VolumeBusyException>(() => Volumes.ConvertAsync("data"));
        await Assert.ThrowsAsync<NameConflictException>(() => Volumes.CreateAsync(Blank("data")));
        Instance other = await CreateCounterAsync();
        await Assert.ThrowsAsync<InvalidRequestException>(() => Volumes.DetachAsync("data", other.Uuid));
        Assert.Equal("ok 1", await AskKvAsync(user, "put a 1"));
    }

    [ContractFact]
    public async Task Several_instances_read_one_volume_and_a_rom()
    {
        await Volumes.CreateAsync(Blank("data")).Guarded();
        Instance writer = await CreateKvAsync(Existing("data"));
        Assert.Equal("ok 1", await AskKvAsync(writer, "put a 1"));
        await Instances.DeleteAsync(writer.Uuid).Guarded();
        string rom = Path.GetTempFileName();
        try
        {
            await File.WriteAllBytesAsync(rom, new byte[1000]);
            CreateInstanceRequest request = Request("kv") with
            {
                Volumes = [Existing("data") with { ReadOnly = true }],
                Roms = [new InstanceRom { Name = "rom", Path = rom, At = "/rom" }],
                WaitTimeout = Timeout.InfiniteTimeSpan,
            };
            Instance one = await Instances.CreateAsync(request).Guarded();
            Instance two = await Instances.CreateAsync(request).Guarded();

            Assert.Equal("value=1", await AskKvAsync(one, "get a"));
            Assert.Equal("value=1", await AskKvAsync(two, "get a"));
            Assert.Contains("error=", await AskKvAsync(one, "put a 2"), StringComparison.Ordinal);
            Assert.Equal(2, Volumes.Get("data").AttachedTo.Count);
            Instance branch = await Instances
                .CreateAsync(new CreateInstanceRequest { BranchFrom = one.Uuid, WaitTimeout = Timeout.InfiniteTimeSpan })
                .Guarded();
            Assert.Equal("value=1", await AskKvAsync(branch, "get a"));
            Assert.True(Assert.Single(branch.Volumes).ReadOnly);
        }
        finally
        {
            File.Delete(rom);
        }
    }

    [ContractFact]
    public async Task A_branch_and_a_load_take_further_volumes_and_roms()
    {
        Instance source = await CreateKvAsync(Owned());
        Assert.Equal("ok 1", await AskKvAsync(source, "put a 1"));
        await Checkpoints
            .CreateAsync(new CreateCheckpointRequest { From = source.Uuid, Name = "point", WaitTimeout = Timeout.InfiniteTimeSpan })
            .Guarded();
        await Volumes.CreateAsync(Blank("more")).Guarded();
        string rom = Path.GetTempFileName();
        try
        {
            await File.WriteAllBytesAsync(rom, new byte[1000]);
            CreateInstanceRequest request = new()
            {
                Roms = [new InstanceRom { Name = "rom", Path = rom, At = "/rom" }],
                WaitTimeout = Timeout.InfiniteTimeSpan,
            };
            InstanceVolume more = Existing("more") with { At = "/more" };
            Instance branch = await Instances.CreateAsync(request with { BranchFrom = source.Uuid, Volumes = [more] }).Guarded();
            Assert.Equal(["/data", "/more"], branch.Volumes.Select(volume => volume.At));
            Assert.Equal("value=1", await AskKvAsync(branch, "get a"));
            await Instances.DeleteAsync(branch.Uuid).Guarded();
            Assert.Equal(VolumeState.Available, Volumes.Get("more").State);
            Instance load = await Instances.CreateAsync(request with { Checkpoint = "point", Volumes = [more, Owned() with { At = "/own" }] }).Guarded();
            Assert.Equal(["/data", "/more", "/own"], load.Volumes.Select(volume => volume.At));
            Assert.Equal("value=1", await AskKvAsync(load, "get a"));
            await Assert.ThrowsAsync<InvalidRequestException>(() => Instances.CreateAsync(request with { BranchFrom = source.Uuid, Volumes = [Owned()] }));
        }
        finally
        {
            File.Delete(rom);
        }
    }

    [ContractFact]
    public async Task Four_volumes_of_an_instance_are_cut_together_and_a_fifth_is_refused()
    {
        string[] names = ["one", "two", "three", "four", "five"];
        foreach (string name in names)
        {
            await Volumes.CreateAsync(Blank(name)).Guarded();
            Instance writer = await CreateKvAsync(Existing(name));
            Assert.Equal("ok 1", await AskKvAsync(writer, $"put name {name}"));
            await Instances.DeleteAsync(writer.Uuid).Guarded();
        }

        Instance source = await CreateKvAsync([.. names[..4].Select(name => Existing(name) with { At = $"/{name}" })]);
        await Assert.ThrowsAsync<InvalidRequestException>(() => Volumes.AttachAsync("five", new AttachVolumeRequest { Instance = source.Uuid, At = "/five" }));
        Instance branch = await Instances.CreateAsync(new CreateInstanceRequest { BranchFrom = source.Uuid, WaitTimeout = Timeout.InfiniteTimeSpan }).Guarded();
        Assert.Equal("ok 2", await AskKvAsync(source, "put name source"));
        Assert.Equal("value=one", await AskKvAsync(branch, "get name"));
        Assert.Equal(names[..4].Select(name => $"/{name}"), branch.Volumes.Select(volume => volume.At));
        Assert.Equal(8, source.Volumes.Concat(branch.Volumes).DistinctBy(volume => volume.Uuid).Count());

        // What each of them holds, without what the source has written since; also when the source and its volumes are gone.
        await Instances.DeleteAsync(source.Uuid).Guarded();
        foreach (string name in names)
        {
            await Volumes.DeleteAsync(name).Guarded();
        }

        foreach ((string name, AttachedVolume own) in names.Zip(branch.Volumes))
        {
            Volume copy = await Volumes.CloneAsync(own.Uuid, new CloneVolumeRequest { Name = $"copy-{name}" }).Guarded();
            Instance reader = await CreateKvAsync(Existing(copy.Uuid));
            Assert.Equal($"value={name}", await AskKvAsync(reader, "get name"));
            Assert.StartsWith("check ok", await AskKvAsync(reader, "check"), StringComparison.Ordinal);
        }
    }

    [ContractFact]
    public async Task Volumes_are_made_of_a_volume_template_and_do_not_need_it_any_more()
    {
        await Volumes.CreateAsync(Blank("golden") with { Tags = ["a"] }).Guarded();
        Instance writer = await CreateKvAsync(Existing("golden"));
        Assert.Equal("ok 1", await AskKvAsync(writer, "put name golden"));
        await Instances.DeleteAsync(writer.Uuid).Guarded();
        Volume template = await Volumes.ConvertAsync("golden").Guarded();
        Assert.Equal((VolumeState.Template, "golden"), (template.State, template.Name));
        await Assert.ThrowsAsync<InvalidRequestException>(() => Volumes.CloneAsync("golden"));
        await Assert.ThrowsAsync<InvalidRequestException>(() => CreateKvAsync(Existing("golden")));
        await Assert.ThrowsAsync<InvalidRequestException>(() => Volumes.ResizeAsync("golden", 16));

        await Volumes.CreateAsync(new CreateVolumeRequest { Name = "one", Template = "golden" }).Guarded();
        Volume two = await Volumes.CreateAsync(new CreateVolumeRequest { Name = "two", Template = template.Uuid, Tags = ["b"] }).Guarded();
        Assert.Equal((VolumeState.Available, 8, "b"), (two.State, two.SizeMb, Assert.Single(two.Tags)));
        await Volumes.PatchAsync("golden", [new PatchOperation.SetDeleteLock(Enabled: true)]).Guarded();
        await Assert.ThrowsAsync<DeletionProtectedException>(() => Volumes.DeleteAsync("golden"));
        await Volumes.PatchAsync("golden", [new PatchOperation.SetDeleteLock(Enabled: false)]).Guarded();
        await Volumes.DeleteAsync("golden").Guarded();
        Instance first = await CreateKvAsync(Existing("one"));
        Instance second = await CreateKvAsync(Existing("two"));
        Assert.Equal("ok 2", await AskKvAsync(first, "put name one"));
        Assert.Equal("value=golden", await AskKvAsync(second, "get name"));
        Assert.Equal("value=one", await AskKvAsync(first, "get name"));
    }

    private static CreateVolumeRequest Blank(string name) => new() { Name = name, SizeMb = 8, Filesystem = VolumeFilesystem.None };

    private static InstanceVolume Existing(NameOrUuid volume) => new() { Volume = volume, At = "/data" };

    private static InstanceVolume Owned() => new() { SizeMb = 8, Filesystem = VolumeFilesystem.None, At = "/data" };

    private Task<Instance> CreateKvAsync(params InstanceVolume[] volumes) => Instances
        .CreateAsync(Request("kv") with { Volumes = volumes, WaitTimeout = Timeout.InfiniteTimeSpan })
        .Guarded();

    private Task<Instance> LoadAsync(string checkpoint) => Instances
        .CreateAsync(new CreateInstanceRequest { Checkpoint = checkpoint, WaitTimeout = Timeout.InfiniteTimeSpan })
        .Guarded();

    private async Task<string> AskKvAsync(Instance instance, string command)
    {
        await using ConsoleSession console = Attach(instance.Uuid);
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
