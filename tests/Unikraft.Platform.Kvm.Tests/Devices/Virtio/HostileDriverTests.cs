using System.Globalization;
using Unikraft.Platform.Kvm.Devices.Virtio;
using Unikraft.Platform.Kvm.Memory;
using Unikraft.Platform.Kvm.Tests.Testing;
using Unikraft.Platform.TestKit;
using Unikraft.Platform.Volumes;

namespace Unikraft.Platform.Kvm.Tests.Devices.Virtio;

/// <summary>
/// A driver that does anything: random and mutated queues, descriptors in loops, addresses outside memory, huge lengths, registers at any
/// moment, memory that changes while it is read. The device ends every case by itself, and no access leaves guest memory.
/// </summary>
/// <remarks>UNIKRAFT_HOSTILE_DRIVER_CASES sets the number of cases of a longer run.</remarks>
public sealed class HostileDriverTests
{
    private const int DiskSize = 64 << 10;

    private static int Cases { get; } =
        int.TryParse(Environment.GetEnvironmentVariable("UNIKRAFT_HOSTILE_DRIVER_CASES"), CultureInfo.InvariantCulture, out int cases) ? cases : 100_000;

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task A_hostile_driver_hurts_nobody_but_itself(bool polls)
    {
        // Who polls looks for more after each case.
        int cases = polls ? Cases / 20 : Cases;
        Random random = new(20);
        using TestDriver driver = new();
        int requests = 0;
        FaultInjectingBlockDevice disk = new(new MemoryBlockDevice(DiskSize)) { Fault = (_, _, _) => requests++ % 50 == 0 ? BlockDeviceError.InputOutput : null };
        await using VirtioBlock device = new(driver.Memory, disk, "disk", failed: _ => { }, driver.Interrupt, polls);
        driver.Device = device;
        driver.Start();
        int stops = 0;
        for (int number = 0; number < cases; number++)
        {
            if (random.Next(50) == 0)
            {
                driver.Write(random.Next(64) * 4, Number(random));
            }

            MakeRequests(driver.Memory, random);
            driver.Write(0x050, 0);
            await device.WhenQuietAsync().Guarded();
            if (driver.Read(0x070) != TestDriver.Running)
            {
                stops++;
                await RestartAsync(driver, device);
            }
        }

        // It was hostile, but some of it made sense. The device still works.
        Assert.InRange(stops, cases / 1000, cases);
        Assert.InRange(requests, cases / 20, int.MaxValue);
        disk.Fault = null;
        await RestartAsync(driver, device);
        Assert.Equal(0, await driver.RequestAsync(0, 1, new byte[1024], isRead: true));
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task Memory_that_changes_while_it_is_read_hurts_nobody(bool polls)
    {
        using TestDriver driver = new();
        await using VirtioBlock device = new(driver.Memory, new MemoryBlockDevice(DiskSize), "disk", failed: _ => { }, driver.Interrupt, polls);
        driver.Device = device;
        driver.Start();
        using CancellationTokenSource stop = new();
        Task other = Task.Run(() =>
        {
            // Another vCPU of the guest, which turns everything upside down.
            Random random = new(21);
            while (!stop.IsCancellationRequested)
            {
                MakeRequests(driver.Memory, random);
            }
        });
        Random random = new(22);
        for (int number = 0; number < Cases / 10; number++)
        {
            MakeRequests(driver.Memory, random);
            driver.Write(0x050, 0);
            if ((driver.Read(0x070) & 64) != 0)
            {
                await RestartAsync(driver, device);
            }
        }

        await stop.CancelAsync();
        await other.Guarded();
        await RestartAsync(driver, device);
        Assert.Equal(0, await driver.RequestAsync(0, 1, new byte[1024], isRead: true));
    }

    private static async Task RestartAsync(TestDriver driver, VirtioBlock device)
    {
        driver.Write(0x070, 0);
        await device.HoldAsync().Guarded();
        device.Release();
        Assert.Equal(0u, driver.Read(0x070));
        driver.Start(TestDriver.Version1 | (1UL << 28));
    }

    /// <summary>Publishes a few requests that make sense, unless something in the queue has been damaged.</summary>
    private static void MakeRequests(GuestMemory memory, Random random)
    {
        ushort index = memory.Read<ushort>(TestDriver.Available + 2);
        int[] free = [.. Enumerable.Range(0, TestDriver.QueueSize)];
        random.Shuffle(free);
        int used = 0;
        for (int request = random.Next(1, 4); request > 0; request--)
        {
            int pieces = random.Next(3);
            int head = free[used];
            long table = TestDriver.Descriptors;
            int[] chain = free[used..(used + pieces + 2)];
            used += pieces + 2;
            if (random.Next(4) == 0)
            {
                table = 0x8000 + 0x400 * request;
                Describe(memory, TestDriver.Descriptors + 16 * head, table, 16 * (uint)(pieces + 2), 4, 0);
                chain = [.. Enumerable.Range(0, pieces + 2)];
            }

            WriteRequest(memory, random, table, chain, header: 0x10000 + 0x4000 * request);
            memory.Write(TestDriver.Available + 4 + 2 * (index++ % TestDriver.QueueSize), (ushort)head);
        }

        for (int damage = random.Next(3); damage > 0; damage--)
        {
            Damage(memory, random);
        }

        memory.Write(TestDriver.Available, (ushort)random.Next(2));
        memory.Write(TestDriver.Available + 2, random.Next(200) == 0 ? (ushort)random.Next(65536) : index);
    }

    private static void WriteRequest(GuestMemory memory, Random random, long table, int[] chain, long header)
    {
        uint[] operations = [0, 0, 0, 1, 1, 1, 4, 8, 11, 13];
        uint operation = operations[random.Next(operations.Length)];
        bool isRead = operation is 0 or 8;
        memory.Write(header, operation);
        memory.Write(header + 8, (long)random.Next(DiskSize / 512));
        Describe(memory, table + 16 * chain[0], header, 16, 1, chain[1]);
        for (int piece = 1; piece < chain.Length - 1; piece++)
        {
            // Data; of a discard, ranges.
            long data = header + 0x1000 * piece;
            if (operation is 11 or 13)
            {
                memory.Write(data, (long)random.Next(DiskSize / 512));
                memory.Write(data + 8, (long)random.Next(9));
            }

            Describe(memory, table + 16 * chain[piece], data, operation is 11 or 13 ? 16 : 512 * (uint)random.Next(1, 8), isRead ? 3 : 1, chain[piece + 1]);
        }

        Describe(memory, table + 16 * chain[^1], header + 0xfff, 1, 2, 0);
    }

    private static void Describe(GuestMemory memory, long at, long address, uint length, int flags, int next)
    {
        memory.Write(at, address);
        memory.Write(at + 8, length);
        memory.Write(at + 12, (ushort)flags);
        memory.Write(at + 14, (ushort)next);
    }

    private static void Damage(GuestMemory memory, Random random)
    {
        long at = (random.Next(3) == 0 ? 0x8400 + 0x400 * random.Next(3) : TestDriver.Descriptors) + random.Next(TestDriver.QueueSize) * 16;
        switch (random.Next(7))
        {
            case 0:
                memory.Write(at, (ulong)Number(random) << random.Next(33));
                break;
            case 1:
                memory.Write(at + 8, Number(random));
                break;
            case 2:
                memory.Write(at + 12, (ushort)random.Next(random.Next(2) == 0 ? 8 : 65536));
                break;
            case 3:
                memory.Write(at + 14, (ushort)random.Next(random.Next(2) == 0 ? TestDriver.QueueSize : 65536));
                break;
            case 4:
                // Onto the queue itself.
                memory.Write(at, (ulong)random.Next(0x1000, 0x4000));
                break;
            case 5:
                memory.Write(TestDriver.Available + 4 + 2 * random.Next(TestDriver.QueueSize), (ushort)random.Next(random.Next(4) == 0 ? 65536 : TestDriver.QueueSize));
                break;
            default:
                // A header.
                memory.Write(0x10000 + 0x4000 * random.Next(1, 4) + 4 * random.Next(4), Number(random));
                break;
        }
    }

    private static uint Number(Random random) => random.Next(4) switch
    {
        0 => (uint)random.Next(16),
        1 => uint.MaxValue >> random.Next(32),
        2 => 1u << random.Next(32),
        _ => (uint)random.NextInt64(1L << 32),
    };
}
