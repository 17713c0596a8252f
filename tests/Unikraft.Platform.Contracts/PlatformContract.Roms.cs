using Unikraft.Platform.TestKit;
using Unikraft.Platform.Volumes;

namespace Unikraft.Platform.Contracts;

public abstract partial class PlatformContract
{
    private const int ExitNoDisk = 65;
    private const int ExitForeignDisk = 66;

    [ContractFact]
    public async Task Roms_are_patched_at_once_when_an_instance_is_stopped()
    {
        InstanceRom one = await MakeRomAsync("one", "/one");
        InstanceRom two = await MakeRomAsync("two");
        InstanceRom three = await MakeRomAsync("three", "/three");
        Instance created = await Instances.CreateAsync(Request("kv", "--disk", "4") with { Name = "it", Autostart = false, Roms = [one] }).Guarded();
        Assert.Equal([one], created.Roms);
        Assert.Equal(ExitForeignDisk, await ExitCodeAsync("it"));

        Assert.Empty((await PatchRomsAsync(new PatchOperation.DelRoms("one", "never-there"))).Roms);
        Assert.Equal(ExitNoDisk, await ExitCodeAsync("it"));

        // One that is added takes the place of the one with its name.
        Assert.Equal([one, two], (await PatchRomsAsync(new PatchOperation.AddRoms(one, two))).Roms);
        InstanceRom other = three with { Name = "one" };
        Assert.Equal([other, two, one with { Name = "three" }], (await PatchRomsAsync(
            new PatchOperation.AddRoms(other),
            new PatchOperation.AddRoms(one with { Name = "three" }))).Roms);
        Assert.Equal([three], (await PatchRomsAsync(new PatchOperation.AddRoms(two), new PatchOperation.SetRoms(three), new PatchOperation.SetArgs("--disk", "5"))).Roms);
        Assert.Equal(ExitNoDisk, await ExitCodeAsync("it"));
        Assert.Equal([three, two], (await PatchRomsAsync(new PatchOperation.AddRoms(two))).Roms);
        Assert.Equal(ExitForeignDisk, await ExitCodeAsync("it"));

        // A new one does not take the slot of one that is replaced behind it.
        Assert.Equal([three, two, one], (await PatchRomsAsync(new PatchOperation.AddRoms(one, three, two))).Roms);
        Assert.Equal(ExitForeignDisk, await ExitCodeAsync("it"));
        Assert.Empty((await PatchRomsAsync(new PatchOperation.SetRoms())).Roms);
    }

    [ContractFact]
    public async Task Roms_of_a_running_instance_are_pending_until_it_boots_again()
    {
        InstanceRom one = await MakeRomAsync("one", "/one");
        InstanceRom two = await MakeRomAsync("two", "/two");
        await Instances.CreateAsync(Request("counter", "--period-ms", "0") with { Name = "it", Roms = [one], WaitTimeout = Timeout.InfiniteTimeSpan }).Guarded();
        await TickAsync("it");

        Instance patched = await PatchRomsAsync(new PatchOperation.AddRoms(two));
        Assert.Equal([one], patched.Roms);
        Assert.Equal([two], Assert.IsType<PatchOperation.AddRoms>(Assert.Single(patched.Updates)).Roms);
        patched = await PatchRomsAsync(new PatchOperation.DelRoms("one"));
        Assert.Equal((1, 2), (patched.Roms.Count, patched.Updates.Count));
        await FailsAsync<InvalidRequestException>(
            "Instance 'it' has something else at '/two' already",
            () => PatchRomsAsync(new PatchOperation.AddRoms(one with { At = "/two" })));
        await Volumes.CreateAsync(Blank("data")).Guarded();
        await FailsAsync<InvalidRequestException>(
            "Instance 'it' has something else at '/two' already",
            () => Volumes.AttachAsync("data", new AttachVolumeRequest { Instance = "it", At = "/two" }).Guarded());

        // It is what it is until it has stopped, and so is what is made of it.
        Assert.Equal([one], (await BranchAsync("it")).Roms);
        Assert.Equal([one], (await CheckpointAsync("it", "point")).Roms);
        await Instances.SuspendAsync("it").Guarded();
        await Instances.StartAsync("it").Guarded();
        Assert.Equal(2, (await TickAsync("it")).Tick);
        Assert.Equal([one], Instances.Get("it").Roms);

        Instance stopped = await Instances.StopAsync("it").Guarded();
        Assert.Equal([two], stopped.Roms);
        Assert.Empty(stopped.Updates);
        await Instances.StartAsync("it").Guarded();
        Assert.Equal(1, (await TickAsync("it")).Tick);
    }

    [ContractFact]
    public async Task A_patch_of_roms_that_is_not_allowed_changes_nothing()
    {
        InstanceRom rom = await MakeRomAsync("rom", "/rom");
        await Volumes.CreateAsync(Blank("data")).Guarded();
        await Instances.CreateAsync(Request("kv") with { Name = "it", Autostart = false, Roms = [rom], Volumes = [Existing("data")] }).Guarded();
        InstanceRom[] nine = [.. Enumerable.Range(0, 9).Select(index => rom with { Name = $"rom-{index}", At = null })];
        (PatchOperation Operation, string Message)[] bad =
        [
            (new PatchOperation.SetRoms((IReadOnlyList<InstanceRom>)null!), "A patch of 'roms' has no value"),
            (new PatchOperation.AddRoms((IReadOnlyList<InstanceRom>)null!), "A patch of 'roms' has no value"),
            (new PatchOperation.DelRoms((IReadOnlyList<string>)null!), "A patch of 'roms' has no value"),
            (new PatchOperation.AddRoms((InstanceRom)null!), "A ROM has no path"),
            (new PatchOperation.AddRoms(rom with { Path = "" }), "A ROM has no path"),
            (new PatchOperation.AddRoms(rom with { Name = "" }), "A ROM is called ''; allowed are 1 to 20 ASCII characters"),
            (new PatchOperation.AddRoms(rom with { Name = "other" }), "Instance 'it' has something else at '/rom' already"),
            (new PatchOperation.SetRoms(rom with { At = "/data" }), "Instance 'it' has something else at '/data' already"),
            (new PatchOperation.SetRoms(rom, rom with { At = null }), "Instance 'it' has a ROM 'rom' already"),
            (new PatchOperation.AddRoms(nine), "Instance 'it' has 8 ROMs: that is all it can have"),
        ];
        foreach ((PatchOperation operation, string message) in bad)
        {
            await FailsAsync<InvalidRequestException>(
                message,
                () => PatchRomsAsync(new PatchOperation.AddTags("tag"), new PatchOperation.DelRoms("nothing"), operation));
        }

        DiskImageException missing = await Assert.ThrowsAsync<DiskImageException>(() => PatchRomsAsync(new PatchOperation.AddRoms(rom with { Path = "/nonexistent/rom" })));
        Assert.Equal("/nonexistent/rom", missing.Path);
        await Assert.ThrowsAsync<InvalidRequestException>(() => PatchRomsAsync(new PatchOperation.SetRoms(), new PatchOperation.AddTags("not a tag")));
        Instance after = Instances.Get("it");
        Assert.Equal([rom], after.Roms);
        Assert.Equal((0, 0), (after.Tags.Count, after.Updates.Count));
    }

    [ContractFact]
    public async Task Roms_are_inherited_and_told_of_whatever_has_them()
    {
        InstanceRom one = await MakeRomAsync("one", "/one");
        InstanceRom two = await MakeRomAsync("two");
        await Instances.CreateAsync(Request("kv", "--disk", "5") with { Name = "it", Autostart = false, Roms = [one] }).Guarded();
        Checkpoint point = await CheckpointAsync("it", "point");
        Assert.Equal([one], point.Roms);
        CreateInstanceRequest request = new() { Roms = [two], Autostart = false };

        Instance branch = await Instances.CreateAsync(request with { BranchFrom = "it" }).Guarded();
        Instance load = await Instances.CreateAsync(request with { Checkpoint = "point" }).Guarded();
        Assert.Equal([one, two], branch.Roms);
        Assert.Equal([one, two], load.Roms);
        Assert.Equal((ExitForeignDisk, ExitForeignDisk), (await ExitCodeAsync(branch.Uuid), await ExitCodeAsync(load.Uuid)));
        Assert.Equal(ExitNoDisk, await ExitCodeAsync("it"));

        // What was given besides is that of whatever is made of it, also when it has never run.
        Instance unused = await Instances.CreateAsync(request with { BranchFrom = "it" }).Guarded();
        Instance further = await Instances.CreateAsync(new CreateInstanceRequest { BranchFrom = unused.Uuid, Autostart = false }).Guarded();
        Assert.Equal([one, two], further.Roms);
        Assert.Equal(ExitForeignDisk, await ExitCodeAsync(further.Uuid));
        await Templates.ConvertAsync("it").Guarded();
        Assert.Equal([one], Templates.Get("it").Roms);
        Assert.Equal([one], (await Instances.CreateAsync(new CreateInstanceRequest { Template = "it", Autostart = false }).Guarded()).Roms);
    }

    private Task<Instance> PatchRomsAsync(params PatchOperation[] operations) => Instances.PatchAsync("it", operations).Guarded();

    private async Task<int?> ExitCodeAsync(NameOrUuid instance)
    {
        await Instances.StartAsync(instance).Guarded();
        return (await Instances.WaitAsync(instance, InstanceState.Stopped).Guarded()).ExitCode;
    }

    /// <summary>Makes a file of one sector, which the store takes for nothing of its own.</summary>
    private async Task<InstanceRom> MakeRomAsync(string name, string? at = null)
    {
        string path = Path.Combine(_volumes.FullName, name + ".rom");
        await File.WriteAllBytesAsync(path, new byte[512]);
        return new InstanceRom { Name = name, Path = path, At = at };
    }
}
