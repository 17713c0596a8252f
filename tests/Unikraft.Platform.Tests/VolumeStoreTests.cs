using System.Diagnostics;
using Unikraft.Platform.Contracts;
using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Tests;

/// <summary>Volumes in a directory of their own, judged by QEMU's and ext4's own tools.</summary>
[RequiresDiskTools]
public sealed class VolumeStoreTests : IDisposable
{
    private const int Megabyte = 1 << 20;
    private const string Journal = "volumes.journal";

    private readonly JudgedFolder _directory = new();

    private string VolumeDirectory => _directory["volumes"];

    public void Dispose() => _directory.Dispose();

    [Fact]
    public async Task Volumes_are_there_again_when_the_directory_is_opened_again()
    {
        Volume before;
        await using (TestPlatform first = NewPlatform())
        {
            before = await first.Platform.Volumes.CreateAsync(Blank("data") with { Tags = ["a"], DeleteLock = true });
            Instance instance = await StartKvAsync(first, "data");
            Assert.Equal("ok 1", await AskAsync(first, instance, "put a 1"));
            await first.Platform.Volumes.CreateAsync(Blank("template"));
            await first.Platform.Volumes.ConvertAsync("template");
        }

        await using TestPlatform second = NewPlatform();
        Volume after = Assert.Single(second.Platform.Volumes.List());
        Assert.Equal(before.Uuid, after.Uuid);
        Assert.Equal(("data", 8, true, VolumeState.Available, before.CreatedAt), (after.Name, after.SizeMb, after.DeleteLock, after.State, after.CreatedAt));
        Assert.Equal(["a"], after.Tags);
        Assert.Equal("template", Assert.Single(second.Platform.Volumes.ListTemplates()).Name);
        Assert.Equal("value=1", await AskAsync(second, await StartKvAsync(second, "data"), "get a"));
        await second.Instances.DeleteAsync(second.Instances.List()[0].Uuid).Guarded();
        await Assert.ThrowsAsync<DeletionProtectedException>(() => second.Platform.Volumes.DeleteAsync("data"));
        await second.Platform.Volumes.PatchAsync("data", [new PatchOperation.SetDeleteLock(false)]);
        await second.Platform.Volumes.DeleteAsync("data");
        Assert.Empty(second.Platform.Volumes.List());
    }

    [Fact]
    public async Task A_directory_belongs_to_one_platform_at_a_time()
    {
        await using TestPlatform first = NewPlatform();

        StorageException error = Assert.Throws<StorageException>(() => NewPlatform());

        Assert.Contains(VolumeDirectory, error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Nothing_is_left_of_volumes_that_are_deleted_and_everything_that_clones_need_is()
    {
        await using TestPlatform platform = NewPlatform();
        IVolumeStore volumes = platform.Platform.Volumes;
        await volumes.CreateAsync(Blank("one"));
        await volumes.CloneAsync("one", new CloneVolumeRequest { Name = "two" });
        await volumes.CloneAsync("two", new CloneVolumeRequest { Name = "three" });
        Assert.True(Images().Length > 3);

        await volumes.DeleteAsync("one");
        await volumes.DeleteAsync("two");
        Assert.Equal("ok 1", await AskAsync(platform, await StartKvAsync(platform, "three"), "put a 1"));
        await platform.Instances.DeleteAsync(platform.Instances.List()[0].Uuid);
        await volumes.DeleteAsync("three");

        Assert.Empty(Images());
        Assert.Empty(volumes.List());
    }

    [Fact]
    public async Task What_others_have_put_into_the_directory_stays_and_no_volume_is_based_on_it()
    {
        byte[] content = [.. Enumerable.Repeat((byte)7, Megabyte)];
        string raw = Path.Combine(VolumeDirectory, "base.raw");
        string image = Path.Combine(VolumeDirectory, "my disk.qcow2");
        for (int start = 0; start < 3; start++)
        {
            await using TestPlatform platform = NewPlatform();
            if (start == 0)
            {
                await File.WriteAllBytesAsync(raw, content);
                await File.WriteAllBytesAsync(_directory.Damaged(Path.Combine("volumes", "my disk.qcow2")), content);
                InvalidRequestException error = await Assert.ThrowsAsync<InvalidRequestException>(
                    () => platform.Platform.Volumes.CreateAsync(new CreateVolumeRequest { BasedOn = new DiskImageFile(raw, DiskImageFormat.Raw) }));
                Assert.Contains(raw, error.Message, StringComparison.Ordinal);
                Assert.Empty(platform.Platform.Volumes.List());
                Volume copy = await platform.Platform.Volumes.CreateAsync(new CreateVolumeRequest { Name = "copy", CopyOf = new DiskImageFile(raw, DiskImageFormat.Raw) });
                Assert.Equal(1, copy.SizeMb);
                Assert.Equal(2, Directory.EnumerateFiles(VolumeDirectory, "*.qcow2").Count());
            }

            Assert.Equal(content, await ReadAsync(platform, "copy", content.Length));
            Assert.Equal(content, await File.ReadAllBytesAsync(raw));
            Assert.Equal(content, await File.ReadAllBytesAsync(image));
        }
    }

    [Fact]
    public async Task What_a_crash_has_left_behind_is_removed_and_a_torn_line_is_no_line()
    {
        await using (TestPlatform first = NewPlatform())
        {
            await first.Platform.Volumes.CreateAsync(Blank("data"));
        }

        string orphan = Path.Combine(VolumeDirectory, $"{Guid.NewGuid():D}.qcow2");
        await File.WriteAllBytesAsync(orphan, [1, 2, 3]);
        string path = Path.Combine(VolumeDirectory, Journal);
        byte[] content = await File.ReadAllBytesAsync(path);
        "0123456789abcdef{\"Rem"u8.CopyTo(content.AsSpan(Array.IndexOf(content, (byte)0)));
        await File.WriteAllBytesAsync(path, content);
        await using (TestPlatform second = NewPlatform())
        {
            Assert.Equal("data", Assert.Single(second.Platform.Volumes.List()).Name);
            Assert.False(File.Exists(orphan));
        }
    }

    [Fact]
    public async Task What_a_damaged_line_of_the_journal_is_about_is_refused_and_the_rest_goes_on()
    {
        string old;
        await using (TestPlatform first = NewPlatform())
        {
            await first.Platform.Volumes.CreateAsync(Blank("sound"));
            await first.Platform.Volumes.CreateAsync(Blank("torn"));
            Instance instance = await StartKvAsync(first, "torn");
            Assert.Equal("ok 1", await AskAsync(first, instance, "put a 1"));
            old = first.Platform.Volumes.Get("torn").Uuid.ToString();

            // A line says that it has another top now.
            await first.Platform.Volumes.CloneAsync("torn", new CloneVolumeRequest { Name = "clone" }).Guarded();
            Assert.Equal("ok 2", await AskAsync(first, instance, "put a 2"));
            await first.Instances.DeleteAsync(instance.Uuid).Guarded();
        }

        string journal = Path.Combine(VolumeDirectory, Journal);
        string[] lines = (await File.ReadAllTextAsync(journal)).Split('\n');
        int damaged = Array.FindLastIndex(lines, line => line.Contains(old, StringComparison.Ordinal));
        lines[damaged] = new string('#', lines[damaged].Length);
        await File.WriteAllTextAsync(journal, string.Join('\n', lines));
        string[] images = Images();

        for (int opening = 0; opening < 2; opening++)
        {
            await using TestPlatform again = NewPlatform();
            Assert.Equal(VolumeState.Error, again.Platform.Volumes.Get("torn").State);
            Assert.Contains("damaged1", again.Platform.Volumes.Get("torn").Error, StringComparison.Ordinal);
            await Assert.ThrowsAsync<DataDamageException>(() => again.Platform.Volumes.CloneAsync("torn"));
            await Assert.ThrowsAsync<DataDamageException>(() => StartKvAsync(again, "torn"));
            Assert.Equal("value=1", await AskAsync(again, await StartKvAsync(again, "clone"), "get a"));
            Assert.Equal($"ok {opening + 1}", await AskAsync(again, await StartKvAsync(again, "sound"), "put a 1"));
            Assert.Empty(images.Except(Images(), StringComparer.Ordinal));
        }

        File.Delete(journal + ".damaged1");
        await using TestPlatform last = NewPlatform();
        await last.Platform.Volumes.DeleteAsync("torn").Guarded();
        Assert.Equal(["clone", "sound"], last.Platform.Volumes.List().Select(volume => volume.Name).Order(StringComparer.Ordinal));
    }

    [Theory]
    [InlineData(0)]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    public async Task What_a_journal_begins_with_is_there_twice(int line)
    {
        for (int opening = 0; opening < 2; opening++)
        {
            await using TestPlatform platform = NewPlatform();
            if (opening == 0)
            {
                await platform.Platform.Volumes.CreateAsync(Blank("one"));
                await platform.Platform.Volumes.CreateAsync(Blank("two"));
            }
        }

        string journal = Path.Combine(VolumeDirectory, Journal);
        string[] lines = (await File.ReadAllTextAsync(journal)).Split('\n');
        Assert.Equal(4 + 1, lines.Length);
        lines[line] = "#" + lines[line][1..];
        await File.WriteAllTextAsync(journal, string.Join('\n', lines));

        await using TestPlatform again = NewPlatform();

        Assert.Equal(["one", "two"], again.Platform.Volumes.List().Select(volume => volume.Name).Order(StringComparer.Ordinal));
        Assert.All(again.Platform.Volumes.List(), volume => Assert.Equal(VolumeState.Available, volume.State));
        Assert.Equal("ok 1", await AskAsync(again, await StartKvAsync(again, "one"), "put a 1"));
    }

    [Fact]
    public async Task A_volume_whose_image_is_missing_is_in_error_and_the_others_are_not()
    {
        await using (TestPlatform first = NewPlatform())
        {
            await first.Platform.Volumes.CreateAsync(Blank("lost"));
        }

        string lost = Assert.Single(Images());
        await using (TestPlatform second = NewPlatform())
        {
            await second.Platform.Volumes.CreateAsync(Blank("found"));
        }

        File.Delete(lost);
        await using TestPlatform third = NewPlatform();
        Volume volume = third.Platform.Volumes.Get("lost");
        Assert.Equal(VolumeState.Error, volume.State);
        Assert.Contains(lost, volume.Error, StringComparison.Ordinal);
        DataDamageException error = await Assert.ThrowsAsync<DataDamageException>(() => StartKvAsync(third, "lost"));
        Assert.Equal(lost, error.Path);
        Assert.Contains(volume.Uuid, error.Dependents);
        Assert.Equal("ok 1", await AskAsync(third, await StartKvAsync(third, "found"), "put a 1"));
    }

    [Fact]
    public async Task Chains_stay_short_while_the_guest_goes_on()
    {
        const int Clones = 60;
        await using (TestPlatform platform = NewPlatform())
        {
            IVolumeStore volumes = platform.Platform.Volumes;
            await volumes.CreateAsync(Blank("data"));
            Instance instance = await StartKvAsync(platform, "data");
            List<Guid> kept = [];
            for (int i = 1; i <= Clones; i++)
            {
                Assert.Equal($"ok {i}", await AskAsync(platform, instance, $"put key{i % 7} {i}"));
                Volume clone = await volumes.CloneAsync("data");
                if (i % 20 == 0)
                {
                    kept.Add(clone.Uuid);
                }
                else
                {
                    await volumes.DeleteAsync(clone.Uuid);
                }
            }

            await platform.Platform.WhenVolumesIdleAsync();
            Assert.InRange(volumes.Get("data").Depth, 1, 30);
            Assert.Equal($"check ok records={Clones} keys=7 last={Clones}", await AskAsync(platform, instance, "check"));
            Assert.Equal("value=60", await AskAsync(platform, instance, "get key4"));

            // Nobody else needs what the clones have kept apart until now.
            foreach (Guid clone in kept)
            {
                Assert.StartsWith("check ok", await AskAsync(platform, await StartKvAsync(platform, clone), "check"), StringComparison.Ordinal);
            }

            await platform.Instances.DeleteAsync(instance.Uuid).Guarded();
            Assert.Equal($"check ok records={Clones} keys=7 last={Clones}", await AskAsync(platform, await StartKvAsync(platform, "data"), "check"));
        }

        await using TestPlatform again = NewPlatform();
        Assert.Equal($"check ok records={Clones} keys=7 last={Clones}", await AskAsync(again, await StartKvAsync(again, "data"), "check"));
        Assert.All(again.Platform.Volumes.List(), volume => Assert.Null(volume.Error));
    }

    [Fact]
    public async Task A_long_chain_whose_images_are_all_needed_is_copied()
    {
        await using TestPlatform platform = NewPlatform();
        IVolumeStore volumes = platform.Platform.Volumes;
        await volumes.CreateAsync(Blank("data"));
        Instance instance = await StartKvAsync(platform, "data");
        for (int i = 1; i <= 150; i++)
        {
            Assert.Equal($"ok {i}", await AskAsync(platform, instance, $"put key {i}"));
            await volumes.CloneAsync("data", new CloneVolumeRequest { Name = $"clone-{i}" });
        }

        await platform.Platform.WhenVolumesIdleAsync();

        Assert.InRange(volumes.Get("data").Depth, 1, 80);
        Assert.Equal("check ok records=150 keys=1 last=150", await AskAsync(platform, instance, "check"));
        Assert.Equal("check ok records=7 keys=1 last=7", await AskAsync(platform, await StartKvAsync(platform, "clone-7"), "check"));
    }

    [ContractFact]
    public async Task A_raw_disk_is_copied_or_built_upon()
    {
        byte[] content = new byte[3 * Megabyte];
        new Random(7).NextBytes(content.AsSpan(Megabyte, 100_000));
        string raw = _directory["disk.raw"];
        await File.WriteAllBytesAsync(raw, content);
        await using TestPlatform platform = NewPlatform();
        Volume copy = await platform.Platform.Volumes.CreateAsync(new CreateVolumeRequest { CopyOf = new DiskImageFile(raw, DiskImageFormat.Raw) });
        Volume based = await platform.Platform.Volumes.CreateAsync(new CreateVolumeRequest { BasedOn = new DiskImageFile(raw, DiskImageFormat.Raw) });

        Assert.Equal((3, 3), (copy.SizeMb, based.SizeMb));
        Assert.Equal((1, 1), (copy.Depth, based.Depth));
        Assert.Equal(content, await ReadAsync(platform, copy.Uuid, content.Length));
        Assert.Equal(content, await ReadAsync(platform, based.Uuid, content.Length));
        Volume clone = await platform.Platform.Volumes.CloneAsync(based.Uuid);
        Assert.Equal(content, await ReadAsync(platform, clone.Uuid, content.Length));
        await Assert.ThrowsAnyAsync<PlatformException>(
            () => platform.Platform.Volumes.CreateAsync(new CreateVolumeRequest { CopyOf = new DiskImageFile(raw, DiskImageFormat.Qcow2) }));
        await Assert.ThrowsAnyAsync<PlatformException>(
            () => platform.Platform.Volumes.CreateAsync(new CreateVolumeRequest { BasedOn = new DiskImageFile(raw + "x", DiskImageFormat.Raw) }));
        Assert.Equal(3, platform.Platform.Volumes.List().Count);
        await platform.Platform.WhenVolumesIdleAsync();
        foreach (string image in Images())
        {
            Assert.Equal(0, await RunAsync("qemu-img", "check", "-q", "-U", image));
            Assert.Equal(0, await RunAsync("qemu-img", "compare", "-q", "-U", "-F", "raw", image, raw));
        }
    }

    [Fact]
    public async Task A_volume_is_detached_from_all_instances_when_none_is_named()
    {
        await using TestPlatform platform = NewPlatform();
        IVolumeStore volumes = platform.Platform.Volumes;
        await volumes.CreateAsync(Blank("data"));
        await volumes.CreateAsync(Blank("other"));
        CreateInstanceRequest reader = TestPlatform.Request("counter", "--period-ms", "0") with
        {
            Volumes = [new InstanceVolume { Volume = "data", At = "/data", ReadOnly = true }, new InstanceVolume { Volume = "other", At = "/other", ReadOnly = true }],
        };
        Instance running = await platform.Instances.CreateAsync(reader with { WaitTimeout = Timeout.InfiniteTimeSpan }).Guarded();
        Instance[] stopped =
        [
            await platform.Instances.CreateAsync(reader with { Autostart = false }).Guarded(),
            await platform.Instances.CreateAsync(reader with { Autostart = false }).Guarded(),
        ];
        Assert.Equal(3, volumes.Get("data").AttachedTo.Count);

        Volume data = await volumes.DetachAsync("data").Guarded();

        // At once where nobody runs, and where somebody does when it stops.
        VolumeAttachment left = Assert.Single(data.AttachedTo);
        Assert.Equal((running.Uuid, VolumeUpdate.Detach), (left.InstanceUuid, left.Pending));
        await platform.Instances.StopAsync(running.Uuid).Guarded();
        await volumes.DeleteAsync("data").Guarded();
        Assert.All([running, .. stopped], instance => Assert.Equal("other", Assert.Single(platform.Instances.Get(instance.Uuid).Volumes).Name));
        Assert.Equal(3, volumes.Get("other").AttachedTo.Count);
        await Assert.ThrowsAsync<VolumeBusyException>(() => volumes.DeleteAsync("other"));
    }

    [Theory]
    [InlineData("attach")]
    [InlineData("convert")]
    [InlineData("create")]
    [InlineData("delete")]
    public async Task What_waits_for_a_stop_is_done_for_whoever_asks_after_it(string operation)
    {
        await using TestPlatform platform = NewPlatform();
        IVolumeStore volumes = platform.Platform.Volumes;
        await volumes.CreateAsync(Blank("data"));
        CreateInstanceRequest request = TestPlatform.Request("counter", "--period-ms", "0") with { Volumes = [new InstanceVolume { Volume = "data", At = "/data" }] };
        Instance instance = await platform.Instances.CreateAsync(request with { WaitTimeout = Timeout.InfiniteTimeSpan }).Guarded();
        Instance other = await platform.Instances.CreateAsync(request with { Volumes = [], Autostart = false }).Guarded();
        await volumes.DetachAsync("data").Guarded();

        await platform.Instances.StopAsync(instance.Uuid).Guarded();

        switch (operation)
        {
            case "attach":
                Assert.Equal(VolumeState.Idle, (await volumes.AttachAsync("data", new AttachVolumeRequest { Instance = other.Uuid, At = "/data" }).Guarded()).State);
                break;
            case "convert":
                Assert.Equal(VolumeState.Template, (await volumes.ConvertAsync("data").Guarded()).State);
                break;
            case "create":
                await platform.Instances.CreateAsync(request with { WaitTimeout = Timeout.InfiniteTimeSpan }).Guarded();
                Assert.Equal(VolumeState.Mounted, volumes.Get("data").State);
                break;
            default:
                await volumes.DeleteAsync("data").Guarded();
                Assert.Empty(volumes.List());
                break;
        }

        Assert.Empty(platform.Instances.Get(instance.Uuid).Volumes);
    }

    [Fact]
    public async Task A_volume_is_attached_when_its_instance_goes_on_and_detached_only_when_it_stops()
    {
        await using TestPlatform platform = NewPlatform();
        IVolumeStore volumes = platform.Platform.Volumes;
        await volumes.CreateAsync(Blank("data"));
        await volumes.CreateAsync(Blank("more"));
        Instance instance = await platform.Instances
            .CreateAsync(TestPlatform.Request("counter", "--period-ms", "0") with
            {
                Volumes = [new InstanceVolume { Volume = "data", At = "/data" }],
                WaitTimeout = Timeout.InfiniteTimeSpan,
            })
            .Guarded();
        await volumes.AttachAsync("more", new AttachVolumeRequest { Instance = instance.Uuid, At = "/more" }).Guarded();
        await volumes.DetachAsync("data").Guarded();
        Assert.Equal((VolumeState.Available, VolumeState.Mounted), (volumes.Get("more").State, volumes.Get("data").State));

        Assert.True((await platform.Instances.SuspendAsync(instance.Uuid).Guarded()).HasSnapshot);
        Assert.Equal((VolumeUpdate.Attach, VolumeUpdate.Detach), (Assert.Single(volumes.Get("more").AttachedTo).Pending, Assert.Single(volumes.Get("data").AttachedTo).Pending));
        await platform.Instances.StartAsync(instance.Uuid).Guarded();
        await platform.WaitAsync(instance.Uuid, InstanceState.Running);

        Assert.Equal((true, null), (Assert.Single(volumes.Get("more").AttachedTo).IsMounted, Assert.Single(volumes.Get("more").AttachedTo).Pending));
        Assert.Equal((VolumeState.Mounted, VolumeState.Mounted), (volumes.Get("more").State, volumes.Get("data").State));
        Assert.Equal(VolumeUpdate.Detach, Assert.Single(volumes.Get("data").AttachedTo).Pending);
        await platform.Instances.StopAsync(instance.Uuid).Guarded();
        await volumes.DeleteAsync("data").Guarded();
        Assert.Equal("/more", Assert.Single(platform.Instances.Get(instance.Uuid).Volumes).At);
        Assert.Equal(VolumeState.Idle, volumes.Get("more").State);
    }

    [Fact]
    public async Task A_volume_without_a_name_has_a_generated_one()
    {
        await using TestPlatform platform = NewPlatform();

        Volume one = await platform.Platform.Volumes.CreateAsync(Blank("data") with { Name = null });
        Volume two = await platform.Platform.Volumes.CloneAsync(one.Uuid);

        Assert.Matches("^vol-[a-z0-9]{5}$", one.Name);
        Assert.Matches("^vol-[a-z0-9]{5}$", two.Name);
        Assert.NotEqual(one.Name, two.Name);
        Assert.Equal(two.Uuid, platform.Platform.Volumes.Get(two.Name!).Uuid);
    }

    [Fact]
    public async Task A_volume_grows_and_keeps_what_is_on_it()
    {
        await using TestPlatform platform = NewPlatform();
        await platform.Platform.Volumes.CreateAsync(Blank("data"));
        Instance instance = await StartKvAsync(platform, "data");
        Assert.Equal("ok 1", await AskAsync(platform, instance, "put a 1"));
        await platform.Instances.StopAsync(instance.Uuid);

        Volume grown = await platform.Platform.Volumes.ResizeAsync("data", 100);

        Assert.Equal(100, grown.SizeMb);
        await Assert.ThrowsAsync<InvalidRequestException>(() => platform.Platform.Volumes.ResizeAsync("data", 99));
        await Assert.ThrowsAsync<InvalidRequestException>(() => platform.Platform.Volumes.ResizeAsync("data", 1_048_577));
        await Assert.ThrowsAsync<InvalidRequestException>(() => platform.Platform.Volumes.CreateAsync(Blank("more") with { SizeMb = 1_048_577 }));
        await platform.Instances.StartAsync(instance.Uuid);
        Assert.Equal("value=1", await AskAsync(platform, instance, "get a"));
    }

    [Fact]
    public async Task A_missing_tool_is_named_and_leaves_nothing_behind()
    {
        await using TestPlatform platform = NewPlatform(options => options.MkfsExt4Path = "/nonexistent/mkfs.ext4");

        PlatformException error = await Assert.ThrowsAsync<PlatformException>(
            () => platform.Platform.Volumes.CreateAsync(new CreateVolumeRequest { Name = "data", SizeMb = 8 }));

        Assert.Equal(PlatformErrorCode.ToolMissing, error.Code);
        Assert.Contains("e2fsprogs", error.Message, StringComparison.Ordinal);
        Assert.Empty(platform.Platform.Volumes.List());
        Assert.Empty(Images());
        await platform.Platform.Volumes.CreateAsync(Blank("data"));
    }

    [ContractFact]
    public async Task A_formatted_volume_is_what_e2fsck_calls_clean()
    {
        await using (TestPlatform platform = NewPlatform())
        {
            Volume volume = await platform.Platform.Volumes.CreateAsync(new CreateVolumeRequest { Name = "data", SizeMb = 1000 });
            Assert.Equal((VolumeFilesystem.Ext4, 2), (volume.Filesystem, volume.Depth));
            await platform.Platform.Volumes.CloneAsync("data");
        }

        Assert.All(Images(), image => Assert.InRange(new FileInfo(image).Length, 1, 1000L * Megabyte));
        foreach (string image in Images().Where(image => image.EndsWith(".qcow2", StringComparison.Ordinal)))
        {
            Assert.Equal(0, await RunAsync("qemu-img", "check", "-q", image));
            string raw = _directory["flat.raw"];
            Assert.Equal(0, await RunAsync("qemu-img", "convert", "-O", "raw", image, raw));
            Assert.Equal(0, await RunAsync("e2fsck", "-f", "-n", raw));
        }
    }

    private static CreateVolumeRequest Blank(string name) => new() { Name = name, SizeMb = 8, Filesystem = VolumeFilesystem.None };

    private static Task<Instance> StartKvAsync(TestPlatform platform, NameOrUuid volume) => platform.Instances
        .CreateAsync(TestPlatform.Request("kv") with
        {
            Volumes = [new InstanceVolume { Volume = volume, At = "/data" }],
            WaitTimeout = Timeout.InfiniteTimeSpan,
        })
        .Guarded();

    private static async Task<string> AskAsync(TestPlatform platform, Instance instance, string command)
    {
        await using ConsoleSession console = new(platform.Instances.AttachConsole(instance.Uuid));
        await console.WriteLineAsync(command);
        string? line;
        do
        {
            line = await console.ReadLineAsync();
        }
        while (line?.StartsWith("kv ", StringComparison.Ordinal) is true);
        return line ?? "";
    }

    private static async Task<byte[]> ReadAsync(TestPlatform platform, NameOrUuid volume, int length)
    {
        byte[] content = [];
        Instance instance = await platform.Instances
            .CreateAsync(TestPlatform.Request("reader") with { Volumes = [new InstanceVolume { Volume = volume, At = "/data", ReadOnly = true }], Args = [$"{length}"] })
            .Guarded();
        await platform.WaitAsync(instance.Uuid, InstanceState.Stopped);
        content = Convert.FromBase64String(System.Text.Encoding.ASCII.GetString(platform.Instances.ReadLog(instance.Uuid).Output.Span));
        await platform.Instances.DeleteAsync(instance.Uuid).Guarded();
        return content;
    }

    private static async Task<int> RunAsync(string tool, params string[] arguments)
    {
        ProcessStartInfo start = new(tool, arguments) { UseShellExecute = false, RedirectStandardOutput = true, RedirectStandardError = true };
        start.Environment["PATH"] += ":/usr/sbin:/sbin";
        using Process process = Process.Start(start)!;
        await Task.WhenAll(process.StandardOutput.ReadToEndAsync(), process.StandardError.ReadToEndAsync()).Guarded();
        await process.WaitForExitAsync().Guarded();
        return process.ExitCode;
    }

    private string[] Images() =>
        [.. Directory.EnumerateFiles(VolumeDirectory).Where(path => path.EndsWith(".qcow2", StringComparison.Ordinal) || path.EndsWith(".raw", StringComparison.Ordinal))];

    private TestPlatform NewPlatform(Action<PlatformOptions>? options = null) => new(
        backend => backend.Guests["reader"] = static () => new FunctionGuest(static context =>
        {
            byte[] content = new byte[int.Parse(context.Args[1], System.Globalization.CultureInfo.InvariantCulture)];
            Assert.Equal(0, context.ReadDisk(0, 0, content));
            context.Write(System.Text.Encoding.ASCII.GetBytes(Convert.ToBase64String(content)));
            return InMemory.GuestStep.Exit(0);
        }),
        platform =>
        {
            platform.VolumeDirectory = VolumeDirectory;
            platform.LogCapacityBytes = 8 * Megabyte;
            options?.Invoke(platform);
        });
}
