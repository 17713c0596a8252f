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
/// <remarks>UNIKRAFT_HOSTILE_DRIVER_CASES sets the number of cases of a longer run: 5000000 takes two minutes.</remarks>
public sealed class HostileDriverTests
{
    private const int DiskSize = 64 << 10;
    private const int CasesPerBatch = 100;

    /// <summary>What a turn may make the disk do: a request for each place of the queue, each of as many ranges as one can have.</summary>
    private const int MaxOperations = TestDriver.QueueSize * 16;

    /// <summary>One that finds what there is, and one for what was announced meanwhile.</summary>
    private const int MaxTurns = 2;

    private static int Cases { get; } =
        int.TryParse(Environment.GetEnvironmentVariable("UNIKRAFT_HOSTILE_DRIVER_CASES"), CultureInfo.InvariantCulture, out int cases) ? cases : 100_000;

    /// <remarks>
    /// All that the device does is done on the thread of the test: a case is over when there is nothing left to do, and if requests are under way then, they are so for ever.
    /// So a hang is found without waiting for it, whatever the machine is busy with. What takes long is told by the time that the thread had a processor.
    /// </remarks>
    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void A_hostile_driver_hurts_nobody_but_itself(bool polls)
    {
        // Who polls looks for more after each case, which takes a hundred times as long.
        int cases = polls ? Cases / 100 : Cases;
        List<int> slow = Play(cases, polls);

        // A virtual machine that stands still is charged to whoever was running: what is slow by itself is so again.
        Assert.Empty(slow.Count == 0 ? slow : slow.Intersect(Play((slow[^1] + 1) * CasesPerBatch, polls)));
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task A_hostile_driver_on_other_threads_hurts_nobody_but_itself(bool polls)
    {
        Random random = new(23);
        using TestDriver driver = new();
        await using VirtioBlock device = new(driver.Memory, new MemoryBlockDevice(DiskSize), "disk", failed: _ => { }, driver.Interrupt, polls);
        driver.Device = device;
        driver.Start();
        for (int number = 0; number < Cases / (polls ? 100 : 20); number++)
        {
            MakeCase(driver, random);
            await device.WhenQuietAsync().Guarded();
            if (driver.Read(0x070) != TestDriver.Running)
            {
                await RestartAsync(driver, device);
            }
        }

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

    /// <summary>Plays cases, the same ones whenever it is called.</summary>
    /// <returns>The batches that took a thread more than a second.</returns>
    private static List<int> Play(int cases, bool polls)
    {
        Random random = new(20);
        using TestDriver driver = new();
        Queue<IThreadPoolWorkItem> turns = new();
        int requests = 0;
        int operations = 0;
        FaultInjectingBlockDevice disk = new(new MemoryBlockDevice(DiskSize))
        {
            Fault = (_, _, _) =>
            {
                operations++;
                return requests++ % 50 == 0 ? BlockDeviceError.InputOutput : null;
            },
        };
        VirtioBlock device = new(driver.Memory, disk, "disk", failed: _ => { }, driver.Interrupt, polls) { Schedule = turns.Enqueue };
        driver.Device = device;
        driver.Start();
        DoTurns();
        int stops = 0;
        List<int> slow = [];
        TimeSpan before = ProcessorTime();
        for (int number = 0; number < cases; number++)
        {
            operations = 0;
            MakeCase(driver, random);
            DoTurns();
            if (driver.Read(0x070) != TestDriver.Running)
            {
                stops++;
                Restart();
            }

            if ((number + 1) % CasesPerBatch == 0)
            {
                TimeSpan now = ProcessorTime();
                if (now - before > TimeSpan.FromSeconds(1))
                {
                    slow.Add(number / CasesPerBatch);
                }

                before = now;
            }
        }

        // It was hostile, but some of it made sense. The device still works.
        Assert.InRange(stops, cases / 1000, cases);
        Assert.InRange(requests, cases / 20, int.MaxValue);
        disk.Fault = null;
        Restart();
        byte[] read = new byte[1024];
        (long status, _) = driver.Begin(0, 1, read, isRead: true);
        DoTurns();
        Assert.Equal(0, driver.Memory.Read<byte>(status));
        Task disposed = device.DisposeAsync().AsTask();
        Assert.True(disposed.IsCompletedSuccessfully);
        return slow;

        void DoTurns()
        {
            for (int count = 0; turns.TryDequeue(out IThreadPoolWorkItem? turn); count++)
            {
                Assert.InRange(count, 0, MaxTurns);
                turn.Execute();
                Assert.InRange(operations, 0, MaxOperations);
            }

            Assert.True(device.WhenQuietAsync().IsCompletedSuccessfully, "There is nothing left to do, and requests are under way for ever.");
        }

        void Restart()
        {
            driver.Write(0x070, 0);
            DoTurns();
            Assert.Equal(0u, driver.Read(0x070));
            driver.Start(TestDriver.Version1 | (1UL << 28));
            DoTurns();
        }
    }

    /// <summary>For how long this thread had a processor.</summary>
    private static TimeSpan ProcessorTime()
    {
        // Behind the name, which may hold anything: the state, ten numbers, and the time in the process and in the kernel in hundredths of a second.
        string status = File.ReadAllText("/proc/thread-self/stat");
        string[] fields = status[(status.LastIndexOf(')') + 2)..].Split(' ');
        return TimeSpan.FromMilliseconds(10 * (long.Parse(fields[11], CultureInfo.InvariantCulture) + long.Parse(fields[12], CultureInfo.InvariantCulture)));
    }

    private static void MakeCase(TestDriver driver, Random random)
    {
        if (random.Next(50) == 0)
        {
            driver.Write(random.Next(64) * 4, Number(random));
        }

        MakeRequests(driver.Memory, random);
        driver.Write(0x050, 0);
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
