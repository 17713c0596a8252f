using System.Collections.Concurrent;
using System.Globalization;
using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Kvm.Devices.Virtio;
using Unikraft.Platform.Kvm.Snapshots;
using Unikraft.Platform.Kvm.Snapshots.Files;
using Unikraft.Platform.Kvm.Tests.Testing;
using Unikraft.Platform.TestKit;
using Unikraft.Platform.Volumes;

namespace Unikraft.Platform.Kvm.Tests.Machines;

/// <summary>Machines with disks, on which the guest <c>kv</c> keeps its store.</summary>
public sealed class DiskTests : KvmTest
{
    private const int Size = 1 << 20;

    /// <summary>How many clones of a loaded guest the proof makes; a thorough run sets it to thousands.</summary>
    private static int Branches =>
        int.TryParse(Environment.GetEnvironmentVariable("UNIKRAFT_DISK_BRANCHES"), CultureInfo.InvariantCulture, out int count) ? count : 60;

    [ContractFact]
    public async Task A_store_is_there_again_after_a_restart()
    {
        byte[] bytes = new byte[Size];
        await using (TestMachine first = await BootKvAsync(new MemoryBlockDevice(bytes)))
        {
            Assert.Equal("kv ready keys=0 last=0 epoch=1 at=/data", first.Monitor.Lines[0]);
            Assert.Equal("ok 1", await AskAsync(first, "put colour dark blue", ""));
            Assert.Equal("ok 2", await AskAsync(first, "put size 3", ""));
            Assert.Equal("ok 3", await AskAsync(first, "del size", ""));
        }

        await using TestMachine second = await BootKvAsync(new MemoryBlockDevice(bytes));

        Assert.Equal("kv ready keys=1 last=3 epoch=1 at=/data", second.Monitor.Lines[0]);
        Assert.Equal("value=dark blue", await AskAsync(second, "get colour", ""));
        Assert.Equal("none", await AskAsync(second, "get size", ""));
        Assert.Equal("check ok records=3 keys=1 last=3", await AskAsync(second, "check", "check"));
    }

    [ContractFact]
    public async Task A_full_journal_is_compacted_and_goes_on()
    {
        byte[] bytes = new byte[2 << 20];
        int last;
        await using (TestMachine first = await BootKvAsync(new MemoryBlockDevice(bytes)))
        {
            string done = await AskAsync(first, "load 100 64", "load done last=");
            last = int.Parse(done["load done last=".Length..], CultureInfo.InvariantCulture);
        }

        await using TestMachine second = await BootKvAsync(new MemoryBlockDevice(bytes));

        string ready = second.Monitor.Lines[0];
        Assert.StartsWith($"kv ready keys=997 last={last} ", ready, StringComparison.Ordinal);
        Assert.DoesNotContain("epoch=1 ", ready, StringComparison.Ordinal);
        Assert.StartsWith("check ok", await AskAsync(second, "check", "check"), StringComparison.Ordinal);
        Assert.Equal($"value={last}", await AskAsync(second, $"get load-{last % 997:d3}", ""));
    }

    [ContractFact]
    public async Task A_guest_without_the_disk_and_one_with_another_disk_say_so()
    {
        Assert.Equal(new MachineExit.PoweredOff(65, new StopCode(0x8200)), await RunKvAsync());
        Assert.Equal(new MachineExit.PoweredOff(66, new StopCode(0x8200)), await RunKvAsync(Disk(NewForeignDisk())));
        Assert.Equal(new MachineExit.PoweredOff(74, new StopCode(0x8200)), await RunKvAsync(Disk(new MemoryBlockDevice(Size, isReadOnly: true))));

        static MemoryBlockDevice NewForeignDisk()
        {
            byte[] foreign = new byte[Size];
            foreign[100] = 1;
            return new MemoryBlockDevice(foreign);
        }
    }

    [ContractFact]
    public async Task All_slots_work_side_by_side()
    {
        MachineDisk[] disks = [.. Enumerable.Range(0, MachineDisk.Slots).Select(slot => Disk(new MemoryBlockDevice(Size), slot))];
        for (int slot = 0; slot < MachineDisk.Slots; slot += 5)
        {
            await using TestMachine machine = await CreateAsync(Kv("--disk", $"{slot}") with { Disks = disks });
            await machine.Machine.StartAsync();
            Assert.EndsWith(disks[slot].At, await machine.Monitor.ReadLineAsync("kv ready"), StringComparison.Ordinal);
            Assert.Equal("ok 1", await AskAsync(machine, "put a b", ""));
        }

        for (int slot = 0; slot < MachineDisk.Slots; slot++)
        {
            Assert.Equal(slot % 5 == 0, ((MemoryBlockDevice)disks[slot].Device).Flushes > 0);
        }
    }

    [ContractFact]
    public async Task What_is_under_way_at_a_cut_is_done_exactly_once_in_each_lineage()
    {
        // Half of the disk is room for some 4,000 records, of which a compaction takes 997.
        const int LessThanARound = 2000;
        byte[] bytes = new byte[4 << 20];
        ConcurrentQueue<(BlockOperation, long)> done = [];
        await using FaultInjectingBlockDevice device = NewBusyDevice(bytes, done);
        await using TestMachine source = await BootKvAsync(device, "--load", "32");
        int waiting = 0;
        for (int round = 0; round < Branches; round++)
        {
            // The source has gone on since the last cut.
            await source.Monitor.ReadLineAsync("ack ");
            CopyAtCut cut = new(bytes) { Cutting = done.Clear };
            using IMachineSnapshot snapshot = await source.Machine.CaptureAsync(new CaptureOptions { Disks = cut }).Guarded();
            Assert.Equal((1, 1, 1), (cut.Holds, cut.Cuts, cut.Releases));
            ConcurrentQueue<(BlockOperation, long)> doneByClone = [];
            await using FaultInjectingBlockDevice copied = NewBusyDevice(cut.Copy!, doneByClone);
            await using TestMachine clone = await RestoreWithoutStartAsync(snapshot, uuid: null, Disk(copied));
            VirtioDeviceState.QueueState queue = ((KvmSnapshot)snapshot).Disks[0].Device.Queues[0];
            Assert.Equal(queue.NextAvailable, queue.NextUsed);
            (BlockOperation Operation, long Offset)[] asked = ListWaiting(clone, queue);
            waiting += asked.Length;
            await clone.Machine.StartAsync();

            // The driver of the guest stops it when a request is done that was not asked for or was done before.
            await clone.Monitor.ReadLineAsync("ack ");
            Assert.StartsWith("check ok", await AskAsync(clone, "check", "check"), StringComparison.Ordinal);
            Assert.StartsWith("check ok", await AskAsync(source, "check", "check"), StringComparison.Ordinal);

            // Each record has a place of its own, so that one that was written twice would be seen. On a busy host the guest comes round to it again, though.
            foreach ((BlockOperation Operation, long Offset) write in asked.Where(static request => request.Operation == BlockOperation.Write))
            {
                Assert.Single(done.Take(LessThanARound), write);
                Assert.Single(doneByClone.Take(LessThanARound), write);
            }

            await source.SendAsync("load 0 32");
        }

        Assert.Empty(source.Monitor.DiskFailures);
        Assert.NotEqual(0, waiting);
    }

    [ContractFact]
    public async Task Reads_writes_discards_and_zeroes_at_a_cut_are_done_exactly_once_in_each_lineage()
    {
        // The guest knows what is in each block, and has one request for a block at a time: one that is done again later, or not at all, is found by the next read.
        byte[] bytes = new byte[Size];
        await using FaultInjectingBlockDevice device = NewBusyDevice(bytes, []);
        await using TestMachine source = await CreateAsync(Configuration(GuestImages.Get("blockio"), 1, 32) with { Disks = [Disk(device)] });
        await source.Machine.StartAsync();
        await source.Monitor.ReadLineAsync("blockio ready");
        await source.SendAsync("verify random 4096 32 0");
        HashSet<BlockOperation> waiting = [];
        for (int round = 0; round < Branches / 4; round++)
        {
            await source.Monitor.ReadLineAsync("verified ");
            CopyAtCut cut = new(bytes);
            using IMachineSnapshot snapshot = await source.Machine.CaptureAsync(new CaptureOptions { Disks = cut }).Guarded();
            await using FaultInjectingBlockDevice copied = NewBusyDevice(cut.Copy!, []);
            await using TestMachine clone = await RestoreWithoutStartAsync(snapshot, uuid: null, Disk(copied));
            waiting.UnionWith(ListWaiting(clone, ((KvmSnapshot)snapshot).Disks[0].Device.Queues[0]).Select(static request => request.Operation));
            await clone.Machine.StartAsync();
            for (int times = 0; times < 3; times++)
            {
                await clone.Monitor.ReadLineAsync("verified ");
            }

            Assert.StartsWith("verify done", await AskAsync(clone, "", "verify "), StringComparison.Ordinal);
        }

        Assert.StartsWith("verify done", await AskAsync(source, "", "verify "), StringComparison.Ordinal);
        Assert.Contains(BlockOperation.Read, waiting);
        Assert.Contains(BlockOperation.Write, waiting);
    }

    [ContractFact]
    public async Task A_snapshot_that_fails_or_is_cancelled_lets_the_disks_go_on()
    {
        byte[] bytes = new byte[Size];
        await using TestMachine source = await BootKvAsync(new MemoryBlockDevice(bytes));
        CopyAtCut failing = new(bytes) { HoldError = new InvalidOperationException("no") };
        await Assert.ThrowsAsync<InvalidOperationException>(
            () => source.Machine.CaptureAsync(new CaptureOptions { Disks = failing }).Guarded());
        CopyAtCut broken = new(bytes) { CutError = new InvalidOperationException("no") };
        await Assert.ThrowsAsync<InvalidOperationException>(
            () => source.Machine.CaptureAsync(new CaptureOptions { Disks = broken }).Guarded());
        Assert.Equal((0, 1), (failing.Releases, broken.Releases));

        Assert.Equal("ok 1", await AskAsync(source, "put a b", ""));
    }

    [ContractFact]
    public async Task A_clone_needs_the_disks_that_its_guest_uses()
    {
        await using TestMachine source = await BootKvAsync(new MemoryBlockDevice(Size));
        Assert.Equal("ok 1", await AskAsync(source, "put a b", ""));
        using IMachineSnapshot snapshot = await source.CaptureAsync();

        await Assert.ThrowsAsync<ArgumentException>(() => RestoreAsync(snapshot));
        await Assert.ThrowsAsync<ArgumentException>(() => RestoreAsync(snapshot, Disk(new MemoryBlockDevice(Size), 1)));
        await Assert.ThrowsAsync<ArgumentException>(() => RestoreAsync(snapshot, Disk(new MemoryBlockDevice(Size / 2))));
        await Assert.ThrowsAsync<ArgumentException>(() => RestoreAsync(snapshot, Disk(new MemoryBlockDevice(Size, isReadOnly: true))));
        await Assert.ThrowsAsync<InvalidRequestException>(
            () => RestoreAsync(snapshot, Disk(new MemoryBlockDevice(Size)), Disk(new MemoryBlockDevice(Size))));
        await using TestMachine clone = await RestoreAsync(snapshot, Disk(new MemoryBlockDevice(Size)), Disk(new MemoryBlockDevice(Size), 3));

        Assert.Equal("value=b", await AskAsync(clone, "get a", ""));
    }

    [ContractFact]
    public async Task A_guest_goes_on_with_its_disks_from_a_file()
    {
        byte[] bytes = new byte[Size];
        DirectoryInfo directory = Directory.CreateTempSubdirectory("unikraft-disks-");
        Guid id = Guid.NewGuid();
        try
        {
            await using (ISnapshotDirectory snapshots = await Hypervisor.GetFeature<ISnapshotFiles>()!.OpenDirectoryAsync(directory.FullName))
            await using (TestMachine source = await BootKvAsync(new MemoryBlockDevice(bytes)))
            {
                Assert.Equal("ok 1", await AskAsync(source, "put a b", ""));
                using IMachineSnapshot snapshot = await source.CaptureAsync();
                await snapshots.SaveAsync(id, snapshot);
            }

            byte[] state = await File.ReadAllBytesAsync(Path.Combine(directory.FullName, StateFile.NameOf(id)));
            Assert.Equal(2, state[8]);
            await using ISnapshotDirectory again = await Hypervisor.GetFeature<ISnapshotFiles>()!.OpenDirectoryAsync(directory.FullName);
            using IMachineSnapshot opened = await again.OpenAsync(id);
            await using TestMachine clone = await RestoreAsync(opened, Disk(new MemoryBlockDevice(bytes)));
            Assert.Equal("ok 2", await AskAsync(clone, "put c d", ""));
            Assert.Equal("check ok records=2 keys=2 last=2", await AskAsync(clone, "check", "check"));
        }
        finally
        {
            directory.Delete(recursive: true);
        }
    }

    [ContractFact]
    public async Task A_failing_disk_is_an_error_for_the_guest_and_a_typed_one_for_the_platform()
    {
        await using FaultInjectingBlockDevice device = new(new MemoryBlockDevice(Size));
        await using TestMachine machine = await BootKvAsync(device);
        Assert.Equal("ok 1", await AskAsync(machine, "put a 1", ""));

        device.Fault = static (operation, _, _) => operation == BlockOperation.Write ? BlockDeviceError.NoSpace : null;
        Assert.Equal("put error=5", await AskAsync(machine, "put a 2", ""));
        Assert.Equal("value=1", await AskAsync(machine, "get a", ""));
        device.Fault = static (operation, _, _) => operation == BlockOperation.Flush ? BlockDeviceError.InputOutput : null;
        Assert.Equal("put error=5", await AskAsync(machine, "put a 3", ""));
        device.Fault = null;
        Assert.Equal("ok 2", await AskAsync(machine, "put a 4", ""));

        Assert.Equal("check ok records=2 keys=1 last=2", await AskAsync(machine, "check", "check"));
        Assert.Equal(
            [BlockDeviceError.NoSpace, BlockDeviceError.InputOutput],
            machine.Monitor.DiskFailures.Select(failure => Assert.IsType<BlockDeviceException>(failure.Error).Error));
        Assert.All(machine.Monitor.DiskFailures, failure => Assert.Equal(0, failure.Slot));
    }

    [ContractFact]
    public async Task A_failure_of_any_write_or_flush_costs_the_change_that_met_it_and_nothing_else()
    {
        byte[] bytes = new byte[Size];
        await using FaultInjectingBlockDevice device = new(new MemoryBlockDevice(bytes));
        await using TestMachine machine = await BootKvAsync(device);
        Assert.StartsWith("load done", await AskAsync(machine, "load 10 64", "load"), StringComparison.Ordinal);
        int failures = 0;
        for (int at = 0; at < 120; at++)
        {
            // Journals are compacted in between too, so that every kind of write fails once.
            int left = at;
            device.Fault = (operation, _, _) => operation is BlockOperation.Write or BlockOperation.Flush && Interlocked.Decrement(ref left) == -1
                ? at % 2 == 0 ? BlockDeviceError.NoSpace : BlockDeviceError.InputOutput
                : null;
            string answer = await AskAsync(machine, "load 2 64", "load");
            failures += answer.StartsWith("load error=5", StringComparison.Ordinal) ? 1 : 0;
            Assert.StartsWith("check ok", await AskAsync(machine, "check", "check"), StringComparison.Ordinal);
        }

        device.Fault = null;
        Assert.StartsWith("ok ", await AskAsync(machine, "put a b", ""), StringComparison.Ordinal);
        Assert.InRange(failures, 100, 120);
        Assert.Equal(failures, machine.Monitor.DiskFailures.Count);
        string count = await AskAsync(machine, "count", "keys=");
        await using TestMachine again = await BootKvAsync(new MemoryBlockDevice(bytes));
        Assert.StartsWith($"kv ready {count} ", again.Monitor.Lines[0], StringComparison.Ordinal);
    }

    [ContractFact]
    public async Task A_request_of_any_kind_that_fails_is_an_error_for_the_guest_and_the_next_ones_are_done()
    {
        await using FaultInjectingBlockDevice device = new(new MemoryBlockDevice(Size));
        await using TestMachine machine = await CreateAsync(Configuration(GuestImages.Get("blockio"), 1, 32) with { Disks = [Disk(device)] });
        await machine.Machine.StartAsync();
        await machine.Monitor.ReadLineAsync("blockio ready");
        int expected = 0;
        foreach (BlockOperation failing in Enum.GetValues<BlockOperation>())
        {
            for (int at = 0; at < 10; at++)
            {
                int left = at;
                BlockDeviceError error = at % 2 == 0 ? BlockDeviceError.InputOutput : BlockDeviceError.NoSpace;
                device.Fault = (operation, _, _) => operation == failing && Interlocked.Decrement(ref left) == -1 ? error : null;
                Assert.Equal("verify error=5", await AskAsync(machine, "verify random 4096 8 0", "verify "));
                Assert.Equal(error, Assert.IsType<BlockDeviceException>(machine.Monitor.DiskFailures.Last().Error).Error);
                Assert.Equal(++expected, machine.Monitor.DiskFailures.Count);
                Assert.StartsWith("verify done", await AskAsync(machine, "verify random 4096 8 300", "verify "), StringComparison.Ordinal);
            }
        }
    }

    private static MachineConfiguration Kv(params string[] args) => Configuration(GuestImages.Get("kv"), 1, 16, args);

    private static MachineDisk Disk(IBlockDevice device, int slot = 0) =>
        new() { Slot = slot, Device = device, Id = $"disk-{slot}", At = slot == 0 ? "/data" : $"/data{slot}" };

    /// <summary>A disk whose requests end on other threads and in another order than they were begun.</summary>
    private static FaultInjectingBlockDevice NewBusyDevice(byte[] bytes, ConcurrentQueue<(BlockOperation, long)> done)
    {
        int requests = 0;
        return new FaultInjectingBlockDevice(new MemoryBlockDevice(bytes))
        {
            Delay = async _ =>
            {
                for (int turns = Interlocked.Increment(ref requests) % 5; turns >= 0; turns--)
                {
                    await Task.Yield();
                }
            },
            Fault = (operation, offset, _) =>
            {
                done.Enqueue((operation, offset));
                return null;
            },
        };
    }

    /// <summary>What the guest has asked for and the device has not taken.</summary>
    private static (BlockOperation Operation, long Offset)[] ListWaiting(TestMachine clone, VirtioDeviceState.QueueState queue)
    {
        const int FirstSector = 8;
        List<(BlockOperation, long)> waiting = [];
        long available = (long)queue.Settings.Available;
        for (ushort next = queue.NextAvailable; next != clone.Memory.Read<ushort>(available + 2); next++)
        {
            ushort head = clone.Memory.Read<ushort>(available + 4 + 2 * (next % queue.Settings.Size));
            long header = clone.Memory.Read<long>((long)queue.Settings.Descriptors + 16 * head);
            BlockOperation operation = clone.Memory.Read<uint>(header) switch
            {
                0 => BlockOperation.Read,
                1 => BlockOperation.Write,
                4 => BlockOperation.Flush,
                11 => BlockOperation.Discard,
                _ => BlockOperation.WriteZeroes,
            };
            waiting.Add((operation, clone.Memory.Read<long>(header + FirstSector) * 512));
        }

        return [.. waiting];
    }

    private static async Task<string> AskAsync(TestMachine machine, string line, string prefix)
    {
        await machine.SendAsync(line);
        return await machine.Monitor.ReadLineAsync(prefix);
    }

    private async Task<TestMachine> BootKvAsync(IBlockDevice device, params string[] args)
    {
        TestMachine machine = await CreateAsync(Kv(args) with { Disks = [Disk(device)] });
        await machine.Machine.StartAsync();
        await machine.Monitor.ReadLineAsync("kv ready");
        return machine;
    }

    private async Task<MachineExit> RunKvAsync(params MachineDisk[] disks)
    {
        await using TestMachine machine = await CreateAsync(Kv() with { Disks = disks });
        await machine.Machine.StartAsync();
        return await machine.Exited;
    }

    /// <summary>Copies a disk at the moment of the cut.</summary>
    private sealed class CopyAtCut(byte[] bytes) : IDiskCut
    {
        private readonly byte[] _room = new byte[bytes.Length];

        internal byte[]? Copy { get; private set; }

        internal int Holds { get; private set; }

        internal int Cuts { get; private set; }

        internal int Releases { get; private set; }

        internal Exception? HoldError { get; init; }

        internal Exception? CutError { get; init; }

        /// <summary>Called at the moment of the cut, when no request is under way.</summary>
        internal Action? Cutting { get; init; }

        public ValueTask HoldAsync(CancellationToken cancellationToken)
        {
            Holds++;
            return HoldError is null ? ValueTask.CompletedTask : throw HoldError;
        }

        public void Cut()
        {
            Cuts++;
            if (CutError is not null)
            {
                throw CutError;
            }

            bytes.CopyTo(_room, 0);
            Copy = _room;
            Cutting?.Invoke();
        }

        public void Release() => Releases++;
    }
}
