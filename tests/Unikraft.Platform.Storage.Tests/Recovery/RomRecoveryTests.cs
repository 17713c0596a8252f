using Unikraft.Platform.Contracts;
using Unikraft.Platform.Storage.Tests.Testing;
using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Storage.Tests.Recovery;

/// <summary>ROMs of instances, checkpoints and templates after the process was killed.</summary>
public sealed class RomRecoveryTests : IDisposable
{
    private static readonly ScaleToZero Stateful = new(Stateful: true, TimeSpan.FromHours(1));

    private readonly string _folder = Directory.CreateTempSubdirectory("roms-").FullName;
    private int _hosts;

    public void Dispose()
    {
        IReadOnlyList<string> problems = LeftImages.FindProblems(_folder);
        Directory.Delete(_folder, recursive: true);
        Assert.Empty(problems);
    }

    [Fact]
    public async Task A_suspended_instance_with_roms_resumes_and_leaves_nothing_behind()
    {
        InstanceRom rom = MakeRom("rom");
        await using DurablePlatform before = New();
        await CreateCounterAsync(before, rom);
        Assert.Equal(InstanceState.Standby, (await before.Instances.SuspendAsync("worker").Guarded()).State);
        await using DurablePlatform after = Kill(before);

        Instance found = after.Instances.Get("worker");
        Assert.Equal((InstanceState.Standby, true), (found.State, found.HasSnapshot));
        Assert.Equal([rom], found.Roms);
        await after.Instances.StartAsync("worker").Guarded();
        Assert.Equal(2, (await after.TickAsync("worker")).Tick);

        // A snapshot's ROMs are nobody's volumes, and go with it.
        Assert.Empty(after.Platform.Volumes.List());
        Assert.Empty(after.Platform.Volumes.ListTemplates());
        await after.Instances.StopAsync("worker").Guarded();
        await after.Instances.DeleteAsync("worker").Guarded();
        await after.DisposeAsync();
        Assert.Contains(rom.Path, ReadJournal(after), StringComparison.Ordinal);
        await using DurablePlatform last = Kill(after);
        await last.DisposeAsync();
        Assert.DoesNotContain(rom.Path, ReadJournal(last), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task A_checkpoint_and_a_template_with_roms_are_there_again(bool runs)
    {
        InstanceRom rom = MakeRom("rom");
        await using DurablePlatform before = New();
        await CreateCounterAsync(before, rom, runs);
        Assert.Equal([rom], (await before.CheckpointAsync("worker", "point")).Roms);
        await before.Templates.ConvertAsync("worker").Guarded();
        await using DurablePlatform after = Kill(before);

        Assert.Equal([rom], after.Checkpoints.Get("point").Roms);
        Assert.Equal([rom], after.Templates.Get("worker").Roms);
        CreateInstanceRequest request = new() { WaitTimeout = Timeout.InfiniteTimeSpan };
        Instance load = await after.Instances.CreateAsync(request with { Checkpoint = "point" }).Guarded();
        Instance clone = await after.Instances.CreateAsync(request with { Template = "worker" }).Guarded();
        Assert.All([load, clone], instance => Assert.Equal([rom], instance.Roms));
        Assert.Equal(runs ? 2 : 1, (await after.TickAsync(load.Uuid)).Tick);
        Assert.Equal(runs ? 2 : 1, (await after.TickAsync(clone.Uuid)).Tick);
        Assert.Equal([rom], after.Checkpoints.Get("point").Roms);
        Assert.Empty(await after.Platform.Data!.VerifyAsync().Guarded());
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task A_rom_that_is_missing_or_another_one_is_told_of(bool isThere)
    {
        InstanceRom rom = MakeRom("rom");
        await using DurablePlatform before = New();
        await CreateCounterAsync(before, rom);
        Checkpoint point = await before.CheckpointAsync("worker", "point");
        await using DurablePlatform after = Kill(before);
        File.Delete(rom.Path);
        if (isThere)
        {
            await File.WriteAllBytesAsync(rom.Path, new byte[1024]);
        }

        DataDamageException error = await Assert
            .ThrowsAsync<DataDamageException>(() => after.Instances.CreateAsync(new CreateInstanceRequest { Checkpoint = "point" }))
            .Guarded();
        Assert.Equal(rom.Path, error.Path);
        Assert.Equal([point.Uuid], error.Dependents);
        Assert.Contains(isThere ? "has 1024 bytes instead of 512" : "is missing", error.Message, StringComparison.Ordinal);
        Assert.Equal(rom.Path, Assert.Single(await after.Platform.Data!.VerifyAsync().Guarded()).Path);
        await File.WriteAllBytesAsync(rom.Path, new byte[512]);
        Instance load = await after.Instances.CreateAsync(new CreateInstanceRequest { Checkpoint = "point", WaitTimeout = Timeout.InfiniteTimeSpan }).Guarded();
        Assert.Equal(2, (await after.TickAsync(load.Uuid)).Tick);
    }

    [Fact]
    public async Task Changes_of_roms_that_wait_for_a_boot_wait_for_it_after_a_restart_of_the_host_as_well()
    {
        InstanceRom one = MakeRom("one");
        InstanceRom two = MakeRom("two") with { At = "/two" };
        await using DurablePlatform before = New();
        await CreateCounterAsync(before, one);
        await before.Instances.SuspendAsync("worker").Guarded();
        await before.Instances.PatchAsync(
            "worker",
            [new PatchOperation.SetRoms(two), new PatchOperation.AddRoms(one), new PatchOperation.DelRoms("nothing", "one")]).Guarded();
        await using DurablePlatform after = Kill(before);

        Instance found = after.Instances.Get("worker");
        Assert.Equal([one], found.Roms);
        Assert.Equal([two], Assert.IsType<PatchOperation.SetRoms>(found.Updates[0]).Roms);
        Assert.Equal([one], Assert.IsType<PatchOperation.AddRoms>(found.Updates[1]).Roms);
        Assert.Equal(["nothing", "one"], Assert.IsType<PatchOperation.DelRoms>(found.Updates[2]).Names);
        await after.Instances.StartAsync("worker").Guarded();
        Assert.Equal(2, (await after.TickAsync("worker")).Tick);
        Assert.Equal([two], (await after.Instances.StopAsync("worker").Guarded()).Roms);
        await after.Instances.PatchAsync("worker", [new PatchOperation.AddRoms(one)]).Guarded();
        await using DurablePlatform last = Kill(after);
        Assert.Equal([two, one], last.Instances.Get("worker").Roms);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task What_an_instance_was_given_besides_its_snapshot_is_that_of_its_checkpoints_before_it_runs(bool isRestarted)
    {
        InstanceRom one = MakeRom("one");
        InstanceRom two = MakeRom("two");
        await using DurablePlatform before = New();
        await CreateCounterAsync(before, one);
        await before.Instances.CreateAsync(new CreateInstanceRequest
        {
            Name = "given",
            BranchFrom = "worker",
            Roms = [two],
            Volumes = [new InstanceVolume { SizeMb = 8, Filesystem = VolumeFilesystem.None, At = "/data" }],
            Autostart = false,
        }).Guarded();
        if (!isRestarted)
        {
            await before.CheckpointAsync("given", "point");
        }

        await using DurablePlatform after = Kill(before);
        Checkpoint point = isRestarted ? await after.CheckpointAsync("given", "point") : after.Checkpoints.Get("point");

        Assert.Equal([one, two], point.Roms);
        Assert.Equal("/data", Assert.Single(point.Volumes).At);
        await after.Instances.DeleteAsync("given").Guarded();
        await after.Instances.DeleteAsync("worker").Guarded();
        Instance load = await after.Instances.CreateAsync(new CreateInstanceRequest { Checkpoint = "point", WaitTimeout = Timeout.InfiniteTimeSpan }).Guarded();
        Assert.Equal([one, two], load.Roms);
        Assert.Equal("/data", Assert.Single(load.Volumes).At);
        Assert.Equal(2, (await after.TickAsync(load.Uuid)).Tick);
    }

    [Fact]
    public async Task A_checkpoint_with_roms_is_not_exported()
    {
        await using DurablePlatform platform = New();
        await CreateCounterAsync(platform, MakeRom("rom"));
        await platform.CheckpointAsync("worker", "point");

        CheckpointArchiveException error = await Assert
            .ThrowsAsync<CheckpointArchiveException>(() => platform.Platform.Data!.ExportAsync("point", Path.Combine(_folder, "archive.tar")))
            .Guarded();
        Assert.Equal("The checkpoint 'point' has ROMs, which are files of this host that no archive can hold.", error.Message);
        Assert.False(File.Exists(error.Path));
    }

    private static Task<Instance> CreateCounterAsync(DurablePlatform platform, InstanceRom rom, bool runs = true) => CreateTickedAsync(
        platform,
        DurablePlatform.Request("counter", "--period-ms", "0") with
        {
            Name = "worker",
            Roms = [rom],
            ScaleToZero = Stateful,
            Autostart = runs,
            WaitTimeout = runs ? Timeout.InfiniteTimeSpan : null,
        });

    private static async Task<Instance> CreateTickedAsync(DurablePlatform platform, CreateInstanceRequest request)
    {
        Instance created = await platform.Instances.CreateAsync(request).Guarded();
        if (request.Autostart)
        {
            Assert.Equal(1, (await platform.TickAsync(created.Uuid)).Tick);
        }

        return created;
    }

    private static string ReadJournal(DurablePlatform platform) => File.ReadAllText(Path.Combine(platform.VolumeDirectory!, "volumes.journal"));

    private InstanceRom MakeRom(string name)
    {
        string path = Path.Combine(_folder, name + ".rom");
        File.WriteAllBytes(path, new byte[512]);
        return new InstanceRom { Name = name, Path = path };
    }

    private DurablePlatform New(SimulatedDisk? disk = null, string? volumes = null) =>
        new(disk, options => options.VolumeDirectory = volumes ?? Path.Combine(_folder, "volumes"));

    private DurablePlatform Kill(DurablePlatform platform)
    {
        string copy = Path.Combine(_folder, $"host{++_hosts}");
        KilledFolder.Copy(platform.VolumeDirectory!, copy);
        return New(platform.Disk.AfterKill(), copy);
    }
}
