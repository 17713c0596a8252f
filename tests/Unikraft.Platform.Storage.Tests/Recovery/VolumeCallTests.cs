using Unikraft.Platform.Storage.Tests.Testing;
using Unikraft.Platform.TestKit;

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

    private static CreateVolumeRequest Blank(string name) => new() { Name = name, SizeMb = 8, Filesystem = VolumeFilesystem.None };
}
