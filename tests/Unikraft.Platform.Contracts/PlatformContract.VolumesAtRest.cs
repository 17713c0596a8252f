using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Contracts;

/// <content>Volumes of instances that do not run, but will go on from a snapshot.</content>
public abstract partial class PlatformContract
{
    [ContractFact]
    public async Task A_template_leaves_volumes_alone_that_its_instance_does_not_have()
    {
        await Volumes.CreateAsync(Blank("data")).Guarded();
        Instance source = await CreateKvAsync(Existing("data"));
        Assert.Equal("ok 1", await AskKvAsync(source, "put a before"));
        await Checkpoints
            .CreateAsync(new CreateCheckpointRequest { From = source.Uuid, Name = "point", WaitTimeout = Timeout.InfiniteTimeSpan })
            .Guarded();
        Assert.Equal("ok 2", await AskKvAsync(source, "put a after"));
        await Instances.DeleteAsync(source.Uuid).Guarded();
        Instance load = await Instances.CreateAsync(new CreateInstanceRequest { Checkpoint = "point", Autostart = false }).Guarded();

        // Its snapshot is one of the source, whose volume nobody has any more; that the instance is to have it later changes nothing.
        await Volumes.AttachAsync("data", new AttachVolumeRequest { Instance = load.Uuid, At = "/more" }).Guarded();
        Template template = await Templates.ConvertAsync(load.Uuid).Guarded();

        Assert.Null(Assert.Single(template.Volumes).Name);
        Assert.Equal((VolumeState.Available, true), (Volumes.Get("data").State, Volumes.Get("data").Persistent));
        Instance next = await CreateKvAsync(Existing("data"));
        Assert.Equal("value=after", await AskKvAsync(next, "get a"));
        Instance clone = await Instances
            .CreateAsync(new CreateInstanceRequest { Template = template.Uuid, WaitTimeout = Timeout.InfiniteTimeSpan })
            .Guarded();
        Assert.Equal("value=before", await AskKvAsync(clone, "get a"));
    }

    [ContractFact]
    public async Task A_template_of_a_suspended_instance_takes_its_volumes_along()
    {
        Volume data = await Volumes.CreateAsync(Blank("data")).Guarded();
        Instance source = await CreateKvAsync(Existing("data"));
        Assert.Equal("ok 1", await AskKvAsync(source, "put a template"));
        await Instances.SuspendAsync(source.Uuid).Guarded();

        Template template = await Templates.ConvertAsync(source.Uuid).Guarded();

        Assert.Equal(data.Uuid, Assert.Single(template.Volumes).Uuid);
        Assert.Empty(Volumes.List());
        Instance clone = await Instances
            .CreateAsync(new CreateInstanceRequest { Template = template.Uuid, WaitTimeout = Timeout.InfiniteTimeSpan })
            .Guarded();
        Assert.Equal("value=template", await AskKvAsync(clone, "get a"));
    }

    [ContractFact]
    public async Task A_volume_that_a_suspended_instance_continues_with_is_not_resized()
    {
        await Volumes.CreateAsync(Blank("data")).Guarded();
        Instance instance = await CreateKvAsync(Existing("data"));
        Assert.Equal("ok 1", await AskKvAsync(instance, "put a 1"));
        Assert.Equal(InstanceState.Stopped, (await Instances.SuspendAsync(instance.Uuid).Guarded()).State);

        await Assert.ThrowsAsync<VolumeBusyException>(() => Volumes.ResizeAsync("data", 16));

        await Instances.StartAsync(instance.Uuid).Guarded();
        Assert.Equal("value=1", await AskKvAsync(instance, "get a"));
        await Instances.StopAsync(instance.Uuid).Guarded();
        Assert.Equal(16, (await Volumes.ResizeAsync("data", 16).Guarded()).SizeMb);
    }
}
