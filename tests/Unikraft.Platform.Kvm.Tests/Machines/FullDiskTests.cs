using System.Globalization;
using Unikraft.Platform.Kvm.Tests.Testing;
using Unikraft.Platform.TestKit;
using Unikraft.Platform.Volumes;
using ConsoleSession = Unikraft.Platform.Contracts.ConsoleSession;

namespace Unikraft.Platform.Kvm.Tests.Machines;

/// <summary>A guest whose volume is on a file system that is really full.</summary>
[RequiresKvm]
[RequiresMount]
public sealed class FullDiskTests : IAsyncLifetime
{
    private const string Failed = "put error=5";

    private SmallFileSystem _disk = null!;
    private IUnikraftPlatform _platform = null!;
    private Instance _guest = null!;
    private int _last;

    public async Task InitializeAsync()
    {
        _disk = await SmallFileSystem.MountAsync(sizeMb: 16);
        _platform = NewPlatform();

        // Each line about it in the journal of the volumes takes room of its own.
        await _platform.Volumes.CreateAsync(new CreateVolumeRequest
        {
            Name = "data",
            SizeMb = 8,
            Filesystem = VolumeFilesystem.None,
            Tags = [.. Enumerable.Range(0, 16).Select(static number => new string((char)('a' + number), 256))],
        });
        _guest = await StartAsync();
        Assert.Null(await PutAsync());
    }

    public async Task DisposeAsync()
    {
        await _platform.DisposeAsync();
        Assert.Empty(await LeftImages.FindProblemsAsync(_disk.Path));
        await _disk.DisposeAsync();
    }

    [ContractFact]
    public async Task The_guest_meets_an_error_and_room_is_all_it_takes_to_go_on()
    {
        _disk.Fill();

        Assert.Equal(Failed, await PutUntilAnswerAsync());
        Assert.Equal(Failed, await PutAsync());
        Assert.Equal("value=" + Value(1), await AskAsync(_guest, "get key-1"));
        Assert.Contains("no room", _platform.Volumes.Get("data").Error, StringComparison.Ordinal);
        await Assert.ThrowsAnyAsync<PlatformException>(() => _platform.Volumes.CloneAsync("data"));
        await Assert.ThrowsAnyAsync<PlatformException>(() => _platform.Instances.CreateAsync(new CreateInstanceRequest { BranchFrom = _guest.Uuid }));
        Assert.Equal(InstanceState.Running, _platform.Instances.Get(_guest.Uuid).State);

        _disk.Free();
        Assert.Null(await PutAsync());
        await CheckAsync();
    }

    [ContractFact]
    public async Task Whichever_write_meets_the_full_disk_it_is_the_only_one_that_suffers()
    {
        // Each page more lets the guest get one write farther: a table of the mapping, then data, then the next cluster of those.
        for (int pages = 0; pages < 40; pages++)
        {
            _disk.Fill(pages);
            Assert.Equal(Failed, await PutUntilAnswerAsync());
            Assert.Contains("no room", _platform.Volumes.Get("data").Error, StringComparison.Ordinal);
            Assert.Equal("value=" + Value(1), await AskAsync(_guest, "get key-1"));
            _disk.Free();
            Assert.Null(await PutAsync());

            // Where the next one begins: a cluster that nothing was written to yet.
            await _platform.Volumes.CloneAsync("data");
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
            _disk.Fill(pages);
            try
            {
                await _platform.Volumes.CloneAsync("data");
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

            _disk.Free();
            Assert.Null(await PutAsync());
            await DeleteClonesAsync();
        }

        Assert.True(isJournalFull);
        await CheckAsync();
    }

    private async Task DeleteClonesAsync()
    {
        foreach (Volume clone in _platform.Volumes.List().Where(static volume => !string.Equals(volume.Name, "data", StringComparison.Ordinal)))
        {
            await _platform.Volumes.DeleteAsync(clone.Uuid);
        }
    }

    private static string Value(int number) => number.ToString(CultureInfo.InvariantCulture).PadLeft(300, 'x');

    private IUnikraftPlatform NewPlatform() =>
        new UnikraftPlatformBuilder().Configure(options => options.VolumeDirectory = Path.Combine(_disk.Path, "volumes")).UseKvm().Build();

    private Task<Instance> StartAsync() => _platform.Instances.CreateAsync(new CreateInstanceRequest
    {
        Image = GuestImages.Get("kv"),
        MemoryMb = 16,
        Volumes = [new InstanceVolume { Volume = "data", At = "/data" }],
        WaitTimeout = Timeout.InfiniteTimeSpan,
    }).Guarded();

    /// <summary>Everything that was acknowledged is there, now and when the volume is opened again.</summary>
    private async Task CheckAsync()
    {
        string expected = $"check ok records={_last} keys={_last} last={_last}";
        Assert.Equal(expected, await AskAsync(_guest, "check"));
        await _platform.DisposeAsync();
        _platform = NewPlatform();
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

    // What the file system has given to the image already takes a few more.
    private async Task<string?> PutUntilAnswerAsync()
    {
        string? answer = null;
        for (int count = 0; count < 200 && answer is null; count++)
        {
            answer = await PutAsync();
        }

        return answer;
    }

    private async Task<string> AskAsync(Instance instance, string command)
    {
        await using ConsoleSession console = new(_platform.Instances.AttachConsole(instance.Uuid));
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
