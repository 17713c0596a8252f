using Unikraft.Platform.Contracts;
using Unikraft.Platform.Instances;
using Unikraft.Platform.Storage.Tests.Testing;

namespace Unikraft.Platform.Storage.Tests.Logs;

public sealed class KeptLogsTests
{
    [Theory]
    [InlineData(4 << 10)]
    [InlineData(256 << 10)]
    public void The_file_of_a_log_is_bounded_and_holds_what_is_kept(int capacity)
    {
        SimulatedDisk disk = new();
        DataFiles files = new(disk, DurablePlatform.Root, isSynced: true);
        disk.MakeDirectory(DurablePlatform.Root);
        files.MakeDirectory(KeptLogs.Folder);
        KeptLogs logs = new(files, capacity);
        Guid instance = Guid.NewGuid();
        InstanceLog log = new(capacity);
        logs.Attach(owner: null, instance, log);
        string path = files.PathOf(KeptLogs.NameOf(instance));
        Random random = new(29);
        int rewritten = 0;
        long length = 0;
        while (log.End < 4 * Bound(capacity))
        {
            // More than is kept now and then, so that some of it never gets into the file.
            byte[] output = new byte[random.Next(1, capacity + (capacity / 4))];
            random.NextBytes(output);
            log.Append(output);
            logs.Flush();
            long now = disk.Content(path).Length;
            Assert.InRange(now, 1, Bound(capacity));
            rewritten += now < length ? 1 : 0;
            length = now;
        }

        Assert.InRange(rewritten, 1, int.MaxValue);
        InstanceLog restored = new(capacity);
        Assert.Null(new KeptLogs(files, capacity).Restore(instance, restored, log.End));
        Assert.Equal(log.End, restored.End);
        Assert.Equal(log.Read(range: null).Output.ToArray(), restored.Read(range: null).Output.ToArray());
    }

    [Fact]
    public async Task The_option_bounds_the_files_of_the_data_directory()
    {
        const int Capacity = 4 << 10;
        const int Starts = 40;
        await using DurablePlatform platform = new(options: static options => options.LogCapacityBytes = Capacity);
        await platform.Instances.CreateAsync(DurablePlatform.Request("hello", new string('x', Capacity)) with { Name = "job", Autostart = false }).Guarded();
        for (int i = 0; i < Starts; i++)
        {
            await platform.Instances.StartAsync("job").Guarded();
            await platform.Instances.WaitAsync("job", InstanceState.Stopped).Guarded();
            platform.Time.Advance(TimeSpan.FromSeconds(2));
            await platform.Instances.PatchAsync("job", [new PatchOperation.AddTags("noted")]).Guarded();
        }

        string file = Assert.Single(platform.Disk.Files, file => file.EndsWith(".log", StringComparison.Ordinal));
        Assert.InRange(platform.Disk.Content(file).Length, Capacity, Bound(Capacity));
        Assert.True(platform.Instances.ReadLog("job").AvailableEnd > 2 * Bound(Capacity));
    }

    // Twice what is kept and the slack are in the file when it is found to be too long, after once more was added; 32 bytes go before 4 KiB.
    private static long Bound(long capacity) => (3 * capacity) + (3 * capacity / 128) + (64 << 10) + 64;

    [Fact]
    public void A_log_that_was_flushed_once_is_there_after_a_power_cut()
    {
        SimulatedDisk disk = new();
        new DataFiles(disk, "/data", isSynced: true).MakeDirectory(KeptLogs.Folder);
        InstanceLog log = new(1 << 16);
        KeptLogs logs = new(new DataFiles(disk, "/data", isSynced: true), 1 << 16);
        logs.Attach(owner: null, Guid.Empty, log);
        log.Append(new byte[100]);
        logs.Flush();

        for (int seed = 0; seed < 20; seed++)
        {
            Assert.Null(new KeptLogs(new DataFiles(disk.AfterPowerCut(new Random(seed)), "/data", isSynced: true), 1 << 16).Verify(Guid.Empty, log.End));
        }
    }

    [Theory]
    [InlineData("Write")]
    [InlineData("Sync")]
    [InlineData("SyncDirectory")]
    [InlineData("Rename")]
    public void A_flush_that_fails_is_made_good_by_the_next(string broken)
    {
        SimulatedDisk disk = new();
        new DataFiles(disk, "/data", isSynced: true).MakeDirectory(KeptLogs.Folder);
        InstanceLog log = new(1 << 16);
        KeptLogs logs = new(new DataFiles(disk, "/data", isSynced: true), 1 << 16);
        logs.Attach(owner: null, Guid.Empty, log);
        byte[] text = new byte[100];
        for (int i = 0; i < 6; i++)
        {
            log.Append(text);

            // Every other flush fails, and so does the one that is to make that good, once.
            disk.Faults = (call, _) => i is 1 or 2 or 4 && string.Equals(call, broken, StringComparison.Ordinal) ? new Fault.Error(5) : null;
            _ = Record.Exception(logs.Flush);
        }

        disk.Faults = null;
        log.Append(text);
        logs.Flush();
        Assert.Null(logs.Verify(Guid.Empty, log.End));
        List<(long Offset, ReadOnlyMemory<byte> Data)> frames = [];
        KeptLogs.Read(disk.AfterPowerCut(new Random(1)).Content($"/data/logs/{Guid.Empty:D}.log"), frames);
        Assert.Equal(log.End, frames.Sum(static frame => frame.Data.Length));
    }
}
