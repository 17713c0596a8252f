using System.Buffers.Binary;
using System.Text;
using Unikraft.Platform.Kvm.Devices.Virtio;
using Unikraft.Platform.Kvm.Tests.Testing;
using Unikraft.Platform.TestKit;
using Unikraft.Platform.Volumes;

namespace Unikraft.Platform.Kvm.Tests.Devices.Virtio;

public sealed class VirtioBlockTests : IAsyncLifetime
{
    private const int Size = 1 << 20;
    private const uint ReadSectors = 0;
    private const uint WriteSectors = 1;
    private const uint Flush = 4;
    private const uint GetId = 8;
    private const uint Discard = 11;
    private const uint WriteZeroes = 13;

    private readonly byte[] _contents = new byte[Size];
    private readonly List<Exception> _failures = [];
    private readonly TestDriver _driver = new();
    private readonly MemoryBlockDevice _memoryDisk;
    private readonly FaultInjectingBlockDevice _disk;

    public VirtioBlockTests()
    {
        new Random(1).NextBytes(_contents);
        _memoryDisk = new MemoryBlockDevice(_contents);
        _disk = new FaultInjectingBlockDevice(_memoryDisk);
        _driver.Device = new VirtioBlock(_driver.Memory, _disk, "disk-0", _failures.Add, _driver.Interrupt);
    }

    public Task InitializeAsync() => Task.CompletedTask;

    public async Task DisposeAsync()
    {
        await _driver.Device.DisposeAsync();
        _driver.Dispose();
    }

    [Fact]
    public void It_says_what_it_is()
    {
        Assert.Equal(0x74726976u, _driver.Read(0x000));
        Assert.Equal(2u, _driver.Read(0x004));
        Assert.Equal(2u, _driver.Read(0x008));
        Assert.Equal(256u, _driver.Read(0x034));
        Assert.Equal(Size / 512, BinaryPrimitives.ReadInt64LittleEndian(_driver.Configuration(0, 8)));
        Assert.Equal(512, BinaryPrimitives.ReadInt32LittleEndian(_driver.Configuration(20, 4)));
        Assert.Equal(new byte[8], _driver.Configuration(0x1000, 8));
        Assert.Equal(uint.MaxValue, _driver.Read(0x0b0));
        _driver.Write(0x014, 1);
        Assert.Equal(1u, _driver.Read(0x010));
    }

    [Theory]
    [InlineData(1, false)]
    [InlineData(3, false)]
    [InlineData(7, true)]
    [InlineData(126, true)]
    public async Task Data_goes_to_the_disk_and_back_in_any_number_of_pieces(int pieces, bool isIndirect)
    {
        _driver.Start(TestDriver.Version1 | (1UL << 28));
        byte[] written = new byte[32 << 10];
        new Random(2).NextBytes(written);

        Assert.Equal(0, await _driver.RequestAsync(WriteSectors, 10, written, isRead: false, pieces, isIndirect));
        Assert.Equal(written, _contents[5120..(5120 + written.Length)]);
        byte[] read = new byte[written.Length + 1024];
        Assert.Equal(0, await _driver.RequestAsync(ReadSectors, 9, read, isRead: true, pieces, isIndirect));
        Assert.Equal(_contents[4608..(4608 + read.Length)], read);
    }

    [Fact]
    public async Task Nothing_depends_on_where_a_request_is_cut()
    {
        // The header in two pieces with the first data in the second of them; the status behind data in the same piece.
        _driver.Start();
        long buffer = _driver.Allocate(16 + 512);
        _driver.Memory.Write(buffer, 1u);
        _driver.Memory.Write(buffer + 8, 3L);
        _driver.Memory.Write(buffer + 16, Enumerable.Repeat((byte)7, 512).ToArray());
        long status = _driver.Allocate(1);
        _driver.Submit(isIndirect: false, (buffer, 5, false), (buffer + 5, 523, false), (status, 1, true));
        await _driver.NextAsync();
        Assert.Equal(0, _driver.Memory.Read<byte>(status));
        Assert.Equal(7, _contents[3 * 512 + 511]);

        _driver.Memory.Write(buffer, 0u);
        long target = _driver.Allocate(513);
        _driver.Submit(isIndirect: false, (buffer, 16, false), (target, 100, true), (target + 100, 413, true));
        Assert.Equal(513, (await _driver.NextAsync()).Length);
        Assert.Equal([.. Enumerable.Repeat((byte)7, 512), 0], _driver.Memory.Read(target, 513).ToArray());
    }

    [Fact]
    public async Task Every_operation_does_what_it_says()
    {
        _driver.Start();
        Assert.Equal(0, await _driver.RequestAsync(Flush, 0, [], isRead: false));
        Assert.Equal(1, _memoryDisk.Flushes);

        byte[] id = new byte[20];
        Assert.Equal(0, await _driver.RequestAsync(GetId, 0, id, isRead: true));
        Assert.Equal("disk-0", Encoding.ASCII.GetString(id).TrimEnd('\0'));

        Assert.Equal(0, await _driver.RequestAsync(Discard, 0, [.. Range(4, 4), .. Range(100, 1)], isRead: false));
        Assert.False(_contents.AsSpan(2048, 2048).ContainsAnyExcept((byte)0));
        Assert.False(_contents.AsSpan(51200, 512).ContainsAnyExcept((byte)0));
        Assert.True(_contents.AsSpan(4096, 512).ContainsAnyExcept((byte)0));
        Assert.Equal(0, await _driver.RequestAsync(WriteZeroes, 0, Range(8, 2, flags: 1), isRead: false));
        Assert.False(_contents.AsSpan(4096, 1024).ContainsAnyExcept((byte)0));

        Assert.Equal(2, await _driver.RequestAsync(99, 0, [], isRead: false));
        Assert.Equal(2, await _driver.RequestAsync(Discard, 0, Range(0, 1, flags: 1), isRead: false));
        Assert.Empty(_failures);
    }

    [Fact]
    public async Task What_is_not_on_the_disk_or_not_whole_sectors_is_an_error()
    {
        _driver.Start();
        byte[] before = [.. _contents];
        Assert.Equal(1, await _driver.RequestAsync(ReadSectors, Size / 512, new byte[512], isRead: true));
        Assert.Equal(1, await _driver.RequestAsync(ReadSectors, -1, new byte[512], isRead: true));
        Assert.Equal(1, await _driver.RequestAsync(WriteSectors, (Size / 512) - 1, new byte[1024], isRead: false));
        Assert.Equal(1, await _driver.RequestAsync(WriteSectors, long.MaxValue, new byte[512], isRead: false));
        Assert.Equal(1, await _driver.RequestAsync(WriteSectors, 0, new byte[511], isRead: false));
        Assert.Equal(1, await _driver.RequestAsync(Discard, 0, Range((Size / 512) - 1, 2), isRead: false));
        Assert.Equal(1, await _driver.RequestAsync(WriteZeroes, 0, [.. Range(0, 1), .. Range(0, uint.MaxValue)], isRead: false));
        Assert.Equal(1, await _driver.RequestAsync(WriteZeroes, 0, new byte[17], isRead: false));
        Assert.Equal(before, _contents);
    }

    [Fact]
    public async Task A_read_only_disk_is_read()
    {
        await using VirtioBlock rom = new(_driver.Memory, new MemoryBlockDevice(_contents, isReadOnly: true), "rom", _failures.Add, _driver.Interrupt);
        _driver.Device = rom;
        Assert.NotEqual(0u, _driver.Read(0x010) & (1 << 5));
        Assert.Equal(0u, _driver.Read(0x010) & (1 << 13 | 1 << 14));
        _driver.Start(TestDriver.Version1 | (1 << 5));
        byte[] before = [.. _contents];
        Assert.Equal(0, await _driver.RequestAsync(ReadSectors, 0, new byte[512], isRead: true));
        Assert.Equal(1, await _driver.RequestAsync(WriteSectors, 0, new byte[512], isRead: false));
        Assert.Equal(1, await _driver.RequestAsync(WriteZeroes, 0, Range(0, 1), isRead: false));
        Assert.Equal(0, await _driver.RequestAsync(Flush, 0, [], isRead: false));
        Assert.Equal(before, _contents);
        Assert.Empty(_failures);
    }

    [Fact]
    public async Task A_disk_that_fails_is_an_error_for_the_guest_and_a_typed_one_for_the_host()
    {
        _driver.Start();
        _disk.Fault = (operation, _, _) => operation == BlockOperation.Write ? BlockDeviceError.NoSpace : null;
        Assert.Equal(1, await _driver.RequestAsync(WriteSectors, 0, new byte[512], isRead: false));
        Assert.Equal(BlockDeviceError.NoSpace, Assert.IsType<BlockDeviceException>(Assert.Single(_failures)).Error);
        _disk.Fault = null;
        Assert.Equal(0, await _driver.RequestAsync(WriteSectors, 0, new byte[512], isRead: false));
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task What_is_answered_is_durable_for_a_driver_that_does_not_know_flushes(bool isRestored)
    {
        _driver.Start();
        using TestDriver? copy = isRestored ? await RestoreAsync() : null;
        TestDriver driver = copy ?? _driver;
        try
        {
            await AssertEachChangeIsFlushedAsync(driver, flushes: 1);

            // A flush that fails is a write that fails, and one is answered no sooner than it is flushed.
            _disk.Fault = static (operation, _, _) => operation == BlockOperation.Flush ? BlockDeviceError.NoSpace : null;
            Assert.Equal(1, await driver.RequestAsync(WriteSectors, 0, new byte[512], isRead: false));
            Assert.Single(_failures);
            _disk.Fault = null;
            TaskCompletionSource begun = new(TaskCreationOptions.RunContinuationsAsynchronously);
            TaskCompletionSource flushed = new(TaskCreationOptions.RunContinuationsAsynchronously);
            _disk.Delay = operation =>
            {
                if (operation != BlockOperation.Flush)
                {
                    return Task.CompletedTask;
                }

                begun.SetResult();
                return flushed.Task;
            };
            (long status, _) = driver.Begin(WriteSectors, 0, new byte[512], isRead: false);
            await begun.Task.Guarded();
            Assert.Equal(0xff, driver.Memory.Read<byte>(status));
            flushed.SetResult();
            await driver.NextAsync();
            Assert.Equal(0, driver.Memory.Read<byte>(status));
        }
        finally
        {
            if (copy is not null)
            {
                await copy.Device.DisposeAsync();
            }
        }
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task A_driver_that_knows_flushes_says_when(bool isRestored)
    {
        _driver.Start(TestDriver.Version1 | TestDriver.FlushFeature);
        using TestDriver? copy = isRestored ? await RestoreAsync() : null;
        await AssertEachChangeIsFlushedAsync(copy ?? _driver, flushes: 0);
        if (copy is not null)
        {
            await copy.Device.DisposeAsync();
        }
    }

    [Fact]
    public async Task Requests_overtake_each_other()
    {
        _driver.Start();
        TaskCompletionSource flushed = new();
        _disk.Delay = operation => operation == BlockOperation.Flush ? flushed.Task : Task.CompletedTask;
        (long flushStatus, _) = _driver.Begin(Flush, 0, [], isRead: false);
        (long readStatus, _) = _driver.Begin(ReadSectors, 0, new byte[512], isRead: true);
        await _driver.NextAsync();
        Assert.Equal(0, _driver.Memory.Read<byte>(readStatus));
        Assert.Equal(0xff, _driver.Memory.Read<byte>(flushStatus));
        flushed.SetResult();
        await _driver.NextAsync();
        Assert.Equal(0, _driver.Memory.Read<byte>(flushStatus));
    }

    [Fact]
    public async Task The_ring_goes_round_many_times()
    {
        _driver.Start();
        Random random = new(3);
        for (int round = 0; round < 5000; round++)
        {
            byte[] data = new byte[512 * random.Next(1, 5)];
            random.NextBytes(data);
            int sector = random.Next(Size / 512 - 4);
            Assert.Equal(0, await _driver.RequestAsync(WriteSectors, sector, data, isRead: false, random.Next(1, 5)));
            Assert.Equal(data, _contents[(sector * 512)..(sector * 512 + data.Length)]);
        }
    }

    [Fact]
    public void Features_and_queues_follow_the_specification()
    {
        // Unknown features, and the lack of version 1, are refused.
        _driver.Start(TestDriver.Version1 | (1UL << 40));
        Assert.Equal(3u, _driver.Read(0x070) & 15);
        _driver.Start(0);
        Assert.Equal(3u, _driver.Read(0x070) & 15);

        // A queue outside memory, not aligned or of a wrong size is not ready.
        _driver.Write(0x070, 0);
        _driver.SetUpQueue(size: 3);
        Assert.Equal(0u, _driver.Read(0x044));
        _driver.SetUpQueue(size: 512);
        Assert.Equal(0u, _driver.Read(0x044));
        _driver.SetUpQueue(descriptors: 0x1008);
        Assert.Equal(0u, _driver.Read(0x044));
        _driver.SetUpQueue(used: TestDriver.MemorySize - 64);
        Assert.Equal(0u, _driver.Read(0x044));
        _driver.SetUpQueue(available: -2);
        Assert.Equal(0u, _driver.Read(0x044));

        // Before the device runs, one that is ready need not stay it.
        _driver.SetUpQueue();
        Assert.Equal(1u, _driver.Read(0x044));
        _driver.Write(0x044, 0);
        Assert.Equal(0u, _driver.Read(0x044));
        _driver.Write(0x038, 8);
        _driver.Write(0x044, 1);
        Assert.Equal(1u, _driver.Read(0x044));

        // A queue in use stays where it is.
        _driver.Start();
        Assert.Equal(1u, _driver.Read(0x044));
        _driver.Write(0x038, 4);
        _driver.Write(0x044, 0);
        Assert.Equal(1u, _driver.Read(0x044));
        _driver.Write(0x030, 7);
        Assert.Equal(0u, _driver.Read(0x034));
        Assert.Equal(0u, _driver.Read(0x044));
        _driver.Write(0x044, 1);
    }

    [Theory]
    [MemberData(nameof(Nonsense))]
    public async Task A_request_without_sense_stops_the_device_until_it_is_reset(string name)
    {
        _driver.Start();
        (Nonsenses[name])(_driver);
        await _driver.InterruptAsync();
        Assert.NotEqual(0u, _driver.Read(0x070) & 64);
        Assert.True(_driver.IsInterruptRaised);
        Assert.Equal(2u, _driver.Read(0x060));

        _driver.Start();
        Assert.Equal(TestDriver.Running, _driver.Read(0x070));
        Assert.Equal(0, await _driver.RequestAsync(ReadSectors, 0, new byte[512], isRead: true));
    }

    public static TheoryData<string> Nonsense => [.. Nonsenses.Keys];

    private static Dictionary<string, Action<TestDriver>> Nonsenses { get; } = new(StringComparer.Ordinal)
    {
        ["a loop"] = driver =>
        {
            driver.WriteDescriptor(TestDriver.Descriptors, 0x8000, 16, 1, 1);
            driver.WriteDescriptor(TestDriver.Descriptors + 16, 0x8000, 16, 1, 0);
            driver.Publish(0);
        },
        ["a head outside the table"] = driver => driver.Publish(16),
        ["a next outside the table"] = driver =>
        {
            driver.WriteDescriptor(TestDriver.Descriptors, 0x8000, 16, 1, 16);
            driver.Publish(0);
        },
        ["a buffer outside memory"] = driver =>
        {
            driver.WriteDescriptor(TestDriver.Descriptors, TestDriver.MemorySize - 8, 16, 0, 0);
            driver.Publish(0);
        },
        ["a buffer that goes round"] = driver =>
        {
            driver.WriteDescriptor(TestDriver.Descriptors, -8, 16, 0, 0);
            driver.Publish(0);
        },
        ["a table in a table"] = driver =>
        {
            driver.WriteDescriptor(0x8000, 0x8000, 16, 4, 0);
            driver.WriteDescriptor(TestDriver.Descriptors, 0x8000, 16, 4, 0);
            driver.Publish(0);
        },
        ["a table of half a descriptor"] = driver =>
        {
            driver.WriteDescriptor(TestDriver.Descriptors, 0x8000, 24, 4, 0);
            driver.Publish(0);
        },
        ["reading after writing"] = driver =>
        {
            driver.WriteDescriptor(TestDriver.Descriptors, 0x8000, 16, 3, 1);
            driver.WriteDescriptor(TestDriver.Descriptors + 16, 0x8000, 16, 0, 0);
            driver.Publish(0);
        },
        ["no status"] = driver =>
        {
            driver.WriteDescriptor(TestDriver.Descriptors, 0x8000, 16, 0, 0);
            driver.Publish(0);
        },
        ["an index far ahead"] = driver =>
        {
            driver.Memory.Write(TestDriver.Available + 2, (ushort)17);
            driver.Write(0x050, 0);
        },
    };

    [Fact]
    public async Task A_reset_is_over_when_the_last_request_is()
    {
        _driver.Start();
        TaskCompletionSource flushed = new();
        TaskCompletionSource begun = new(TaskCreationOptions.RunContinuationsAsynchronously);
        _disk.Delay = _ =>
        {
            begun.TrySetResult();
            return flushed.Task;
        };
        _driver.Begin(Flush, 0, [], isRead: false);
        await begun.Task.Guarded();
        _driver.Write(0x070, 0);
        Assert.NotEqual(0u, _driver.Read(0x070));
        flushed.SetResult();
        await _driver.Device.HoldAsync().Guarded();
        Assert.Equal(0u, _driver.Read(0x070));
        _driver.Device.Release();
    }

    /// <param name="isInterrupted">Whether the driver has not acknowledged yet that the request before was done: it hears of that in the copy, too.</param>
    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task A_device_that_is_held_back_can_be_saved_and_goes_on_in_a_copy(bool isInterrupted)
    {
        _driver.Start();
        _ = _driver.Begin(ReadSectors, 0, new byte[512], isRead: true);
        await _driver.Device.WhenQuietAsync().Guarded();
        Assert.True(_driver.IsInterruptRaised);
        _ = await _driver.NextAsync();
        if (!isInterrupted)
        {
            _driver.Write(0x064, 1);
        }

        Assert.Equal(isInterrupted, _driver.IsInterruptRaised);
        Assert.Throws<InvalidOperationException>(_driver.Device.Save);
        await _driver.Device.HoldAsync().Guarded();
        byte[] data = [.. Enumerable.Repeat((byte)9, 512)];
        (long status, _) = _driver.Begin(WriteSectors, 4, data, isRead: false);
        VirtioDeviceState state = _driver.Device.Save();

        // A copy of the memory, another disk: the request that was waiting is done in both, once each.
        using TestDriver clone = _driver.Fork();
        byte[] others = new byte[Size];
        await using VirtioBlock device = new(clone.Memory, new MemoryBlockDevice(others), "copy", _failures.Add, clone.Interrupt);
        clone.Device = device;
        device.Restore(state);
        _ = await clone.NextAsync();
        Assert.Equal(0, clone.Memory.Read<byte>(status));
        Assert.Equal(data, others[2048..2560]);
        Assert.Equal(0xff, _driver.Memory.Read<byte>(status));
        _driver.Device.Release();
        await _driver.NextAsync();
        Assert.Equal(data, _contents[2048..2560]);

        using TestDriver small = new();
        await using VirtioBlock other = new(small.Memory, new MemoryBlockDevice(512), "small", _failures.Add);
        VirtioDeviceState wrong = state with
        {
            Queues = [state.Queues[0] with { Settings = state.Queues[0].Settings with { Used = ulong.MaxValue - 3 } }],
        };
        Assert.Throws<ArgumentException>(() => other.Restore(wrong));
    }

    /// <summary>A device of the same disk over a copy of the memory, whose state is that of the driver's.</summary>
    private async Task<TestDriver> RestoreAsync()
    {
        await _driver.Device.HoldAsync().Guarded();
        VirtioDeviceState state = _driver.Device.Save();
        TestDriver copy = _driver.Fork();
        copy.Device = new VirtioBlock(copy.Memory, _disk, "copy", _failures.Add, copy.Interrupt);
        copy.Device.Restore(state);
        return copy;
    }

    private async Task AssertEachChangeIsFlushedAsync(TestDriver driver, int flushes)
    {
        int before = _memoryDisk.Flushes;
        Assert.Equal(0, await driver.RequestAsync(ReadSectors, 0, new byte[512], isRead: true));
        Assert.Equal(before, _memoryDisk.Flushes);
        foreach ((uint operation, byte[] data, int pieces) in ((uint, byte[], int)[])
            [(WriteSectors, new byte[512], 1), (WriteSectors, new byte[2048], 3), (Discard, Range(4, 4), 1), (WriteZeroes, [.. Range(8, 2), .. Range(16, 1)], 1)])
        {
            Assert.Equal(0, await driver.RequestAsync(operation, 0, data, isRead: false, pieces));
            Assert.Equal(before += flushes, _memoryDisk.Flushes);
        }
    }

    private static byte[] Range(long sector, uint sectors, uint flags = 0)
    {
        byte[] range = new byte[16];
        BinaryPrimitives.WriteInt64LittleEndian(range, sector);
        BinaryPrimitives.WriteUInt32LittleEndian(range.AsSpan(8), sectors);
        BinaryPrimitives.WriteUInt32LittleEndian(range.AsSpan(12), flags);
        return range;
    }
}
