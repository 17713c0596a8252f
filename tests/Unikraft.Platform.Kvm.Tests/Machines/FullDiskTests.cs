using System.Globalization;
using Unikraft.Platform.Kvm.Tests.Testing;
using Unikraft.Platform.TestKit;
using Unikraft.Platform.Volumes;

namespace Unikraft.Platform.Kvm.Tests.Machines;

/// <summary>A guest whose volume is on a file system that is really full.</summary>
[RequiresKvm]
[RequiresMount]
public sealed class FullDiskTests : IAsyncLifetime
{
    private const string Failed = "put error=5";

    /// <summary>A volume that lines in the journal are written about, to fill it.</summary>
    private const string Filler = "filler";

    /// <summary>What of the journal is for volumes that are gone.</summary>
    private const int ReserveForRemovals = 8 << 10;

    private SmallPlatform _small = null!;
    private Instance _guest = null!;
    private int _last;

    private IUnikraftPlatform Platform => _small.Platform;

    public async Task InitializeAsync()
    {
        _small = await SmallPlatform.StartAsync(sizeMb: 16, static (options, path) => options.VolumeDirectory = Path.Combine(path, "volumes"));

        // Each line about it in the journal of the volumes takes room of its own.
        await Platform.Volumes.CreateAsync(new CreateVolumeRequest
        {
            Name = "data",
            SizeMb = 8,
            Filesystem = VolumeFilesystem.None,
            Tags = [.. Enumerable.Range(0, 16).Select(static number => new string((char)('a' + number), 256))],
        });
        await Platform.Volumes.CreateAsync(new CreateVolumeRequest { Name = Filler, SizeMb = 8, Filesystem = VolumeFilesystem.None });
        _guest = await StartAsync();
        Assert.Null(await PutAsync());
    }

    public async Task DisposeAsync() => await _small.DisposeAsync();

    [ContractFact]
    public async Task The_guest_meets_an_error_and_room_is_all_it_takes_to_go_on()
    {
        _small.Disk.Fill();

        Assert.Equal(Failed, await PutUntilAnswerAsync());
        Assert.Equal(Failed, await PutAsync());
        Assert.Equal("value=" + Value(1), await AskAsync(_guest, "get key-1"));
        Assert.Contains("no room", Platform.Volumes.Get("data").Error, StringComparison.Ordinal);
        await Assert.ThrowsAnyAsync<PlatformException>(() => Platform.Volumes.CloneAsync("data"));
        await Assert.ThrowsAnyAsync<PlatformException>(() => Platform.Instances.CreateAsync(new CreateInstanceRequest { BranchFrom = _guest.Uuid }));
        Assert.Equal(InstanceState.Running, Platform.Instances.Get(_guest.Uuid).State);

        _small.Disk.Free();
        Assert.Null(await PutAsync());
        await CheckAsync();
    }

    [ContractFact]
    public async Task Whichever_write_meets_the_full_disk_it_is_the_only_one_that_suffers()
    {
        // Each page more lets the guest get one write farther: a table of the mapping, then data, then the next cluster of those.
        for (int pages = 0; pages < 40; pages++)
        {
            _small.Disk.Fill(pages);
            Assert.Equal(Failed, await PutUntilAnswerAsync());
            Assert.Contains("no room", Platform.Volumes.Get("data").Error, StringComparison.Ordinal);
            Assert.Equal("value=" + Value(1), await AskAsync(_guest, "get key-1"));
            _small.Disk.Free();
            Assert.Null(await PutAsync());

            // Where the next one begins: a cluster that nothing was written to yet.
            await Platform.Volumes.CloneAsync("data");
            await DeleteClonesAsync();
        }

        await CheckAsync();
    }

    [ContractFact]
    public async Task A_cut_that_could_not_be_written_down_is_written_down_when_there_is_room()
    {
        // Room for the new image of a cut, and none for the line that says so.
        bool isJournalFull = false;
        for (int pages = 16; pages < 80; pages += 2)
        {
            await UseUpJournalAsync();
            _small.Disk.Fill(pages);
            try
            {
                await Platform.Volumes.CloneAsync("data");
            }
            catch (StorageException error)
            {
                isJournalFull = true;
                Assert.True(error.IsFull);
                Assert.Equal(Failed, await PutUntilAnswerAsync());
            }
            catch (BlockDeviceException error)
            {
                Assert.Equal(BlockDeviceError.NoSpace, error.Error);
            }

            _small.Disk.Free();
            Assert.Null(await PutAsync());
            await DeleteClonesAsync();
        }

        Assert.True(isJournalFull);
        await CheckAsync();
    }

    /// <remarks>Each page more lets an operation get one write farther, until it succeeds: a table of an image, its header, the line in the journal.</remarks>
    /// <remarks>Not in the SVM lab: what a full disk does to an operation is not KVM's.</remarks>
    [ContractFact]
    [Trait("Lab", "TooLong")]
    public async Task An_operation_that_meets_a_full_disk_fails_whole_and_succeeds_when_there_is_room()
    {
        const int MaxPages = 200;
        IVolumeStore volumes = Platform.Volumes;
        using JudgedFolder elsewhere = new();
        string raw = elsewhere["disk.raw"];
        byte[] content = new byte[256 << 10];
        new Random(5).NextBytes(content);
        await File.WriteAllBytesAsync(raw, content);
        string[] tags = [.. Enumerable.Range(0, 16).Select(static number => new string((char)('A' + number), 256))];
        CreateVolumeRequest blank = new() { Name = "new", SizeMb = 8, Filesystem = VolumeFilesystem.None, Tags = tags };
        await volumes.CreateAsync(blank with { Name = "golden" });
        await volumes.ConvertAsync("golden");
        await volumes.CreateAsync(blank with { Name = "other" });
        Task DeleteAsync() => volumes.DeleteAsync("new");
        (string Name, Func<Task> Act, Func<Task> Undo)[] operations =
        [
            ("create", () => volumes.CreateAsync(blank), DeleteAsync),
            ("format", () => volumes.CreateAsync(blank with { Filesystem = VolumeFilesystem.Ext4 }), DeleteAsync),
            ("create of a template", () => volumes.CreateAsync(new CreateVolumeRequest { Name = "new", Template = "golden", Tags = tags }), DeleteAsync),
            ("copy", () => volumes.CreateAsync(new CreateVolumeRequest { Name = "new", CopyOf = new DiskImageFile(raw, DiskImageFormat.Raw), Tags = tags }), DeleteAsync),
            ("base", () => volumes.CreateAsync(new CreateVolumeRequest { Name = "new", BasedOn = new DiskImageFile(raw, DiskImageFormat.Raw), Tags = tags }), DeleteAsync),
            ("clone", () => volumes.CloneAsync("other", new CloneVolumeRequest { Name = "new", Tags = tags }), DeleteAsync),
            ("clone of one in use", () => volumes.CloneAsync("data", new CloneVolumeRequest { Name = "new", Tags = tags }), DeleteAsync),
            ("branch", () => BranchAsync(), () => Platform.Instances.DeleteAsync("branch")),
            ("resize", () => volumes.ResizeAsync("other", 9), () => Task.CompletedTask),
            ("patch", () => volumes.PatchAsync("other", [new PatchOperation.DelTags(tags[0])]), () => Task.CompletedTask),
            ("convert", () => volumes.ConvertAsync("other"), () => Task.CompletedTask),
            ("delete", () => volumes.DeleteAsync("other"), () => Task.CompletedTask),
        ];
        foreach ((string name, Func<Task> act, Func<Task> undo) in operations)
        {
            if (string.Equals(name, "format", StringComparison.Ordinal) && !File.Exists("/usr/sbin/mkfs.ext4") && !File.Exists("/sbin/mkfs.ext4"))
            {
                continue;
            }

            int failures = 0;
            bool isDone = false;
            for (int pages = 0; pages < MaxPages && !isDone; pages++)
            {
                await UseUpJournalAsync();
                IReadOnlyList<string> before = Describe();
                _small.Disk.Fill(pages);
                Exception? error = await Record.ExceptionAsync(act);
                _small.Disk.Free();
                if (error is null)
                {
                    isDone = true;
                }
                else
                {
                    failures++;
                    Assert.True(error is StorageException { IsFull: true } or BlockDeviceException { Error: BlockDeviceError.NoSpace }, $"{name}, {pages} pages: {error}");

                    // An image that has grown stays so, and its volume says what it is.
                    Assert.True(before.SequenceEqual(Describe()) || string.Equals(name, "resize", StringComparison.Ordinal), $"{name}, {pages} pages: {string.Join('\n', Describe())}");
                    Assert.Null(await PutAsync());
                }
            }

            // Deletions are what makes room: they find some.
            Assert.True(isDone && (failures > 0) != string.Equals(name, "delete", StringComparison.Ordinal), $"{name}: {failures} failures");
            await undo();
        }

        await CheckAsync();
        Assert.Equal(["data", Filler, "golden"], Platform.Volumes.List().Concat(Platform.Volumes.ListTemplates()).Select(static volume => volume.Name));

        Task<Instance> BranchAsync() => Platform.Instances.CreateAsync(new CreateInstanceRequest { Name = "branch", BranchFrom = _guest.Uuid, Autostart = false }).Guarded();
    }

    /// <summary>So many lines that the next one needs more of the disk.</summary>
    private async Task UseUpJournalAsync()
    {
        int room = await RoomAsync();
        for (int line = 1; room - line >= ReserveForRemovals;)
        {
            bool isTagged = Platform.Volumes.Get(Filler).Tags.Count > 0;
            await Platform.Volumes.PatchAsync(Filler, [isTagged ? new PatchOperation.DelTags("x") : new PatchOperation.AddTags("x")]);
            int left = await RoomAsync();
            line = Math.Max(line, room - left);
            room = left;
        }
    }

    private async Task<int> RoomAsync()
    {
        await using FileStream file = new(Path.Combine(_small.Disk.Path, "volumes", "volumes.journal"), FileMode.Open, FileAccess.Read, FileShare.ReadWrite | FileShare.Delete);
        byte[] journal = new byte[file.Length];
        await file.ReadExactlyAsync(journal);
        return journal.Length - journal.AsSpan().LastIndexOfAnyExcept((byte)0) - 1;
    }

    private IReadOnlyList<string> Describe() =>
    [
        // Without what a snapshot has had, which goes in the background.
        .. Platform.Volumes.List().Concat(Platform.Volumes.ListTemplates()).Where(static volume => volume.Name is not null)
            .Select(static volume => $"{volume.Uuid} {volume.Name} {volume.SizeMb} {volume.State} {string.Join(',', volume.Tags)}"),
        .. Platform.Instances.List().Select(static instance => $"{instance.Uuid} {instance.Name} {instance.State}"),
    ];

    private async Task DeleteClonesAsync()
    {
        foreach (Volume clone in Platform.Volumes.List().Where(static volume => volume.Name is not ("data" or Filler)))
        {
            await Platform.Volumes.DeleteAsync(clone.Uuid);
        }
    }

    private static string Value(int number) => number.ToString(CultureInfo.InvariantCulture).PadLeft(300, 'x');

    private Task<Instance> StartAsync() => _small.StartKvAsync(new InstanceVolume { Volume = "data", At = "/data" }).Guarded();

    /// <summary>Everything that was acknowledged is there, now and when the volume is opened again.</summary>
    private async Task CheckAsync()
    {
        string expected = $"check ok records={_last} keys={_last} last={_last}";
        Assert.Equal(expected, await AskAsync(_guest, "check"));
        await _small.RestartAsync();
        _guest = await StartAsync();
        Assert.Equal(expected, await AskAsync(_guest, "check"));
        Assert.Equal("value=" + Value(_last), await AskAsync(_guest, $"get key-{_last}"));
    }

    /// <summary>Adds a key.</summary>
    /// <returns>What the guest says; null when it has done so.</returns>
    private async Task<string?> PutAsync()
    {
        string answer = await AskAsync(_guest, $"put key-{_last + 1} {Value(_last + 1)}");
        if (!string.Equals(answer, $"ok {_last + 1}", StringComparison.Ordinal))
        {
            return answer;
        }

        _last++;
        return null;
    }

    // What the file system has given to the image already takes a few more, and folding in the background may give room back.
    private async Task<string?> PutUntilAnswerAsync()
    {
        string? answer = null;
        for (int count = 1; count <= 600 && answer is null; count++)
        {
            answer = await PutAsync();
            if (answer is null && count % 200 == 0)
            {
                _small.Disk.Fill();
            }
        }

        return answer;
    }

    private Task<string> AskAsync(Instance instance, string command) => _small.AskAsync(instance.Uuid, command);
}
