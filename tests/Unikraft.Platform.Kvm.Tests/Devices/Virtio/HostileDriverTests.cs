using System.Globalization;
using Unikraft.Platform.Kvm.Devices.Virtio;
using Unikraft.Platform.Kvm.Memory;
using Unikraft.Platform.Kvm.Tests.Testing;
using Unikraft.Platform.TestKit;

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

    [Fact]
    public async Task A_hostile_driver_hurts_nobody_but_itself()
    {
        Random random = new(20);
        using TestDriver driver = new();
        await using VirtioBlock device = new(driver.Memory, new MemoryBlockDevice(DiskSize), "disk", failed: _ => { }, driver.Interrupt);
        driver.Device = device;
        driver.Start();
        int stops = 0;
        for (int number = 0; number < Cases; number++)
        {
            if (random.Next(50) == 0)
            {
                driver.Write(random.Next(64) * 4, Number(random));
            }

            MakeRequests(driver.Memory, random);
            driver.Write(0x050, 0);
            if (random.Next(8) == 0)
            {
                await device.HoldAsync().Guarded();
                device.Release();
            }

            if ((driver.Read(0x070) & 64) != 0 || random.Next(200) == 0)
            {
                stops++;
                await RestartAsync(driver, device);
            }
        }

        // It was hostile, and the device still works.
        Assert.InRange(stops, Cases / 1000, Cases);
        await RestartAsync(driver, device);
        Assert.Equal(0, await driver.RequestAsync(0, 1, new byte[1024], isRead: true));
    }

    [Fact]
    public async Task Memory_that_changes_while_it_is_read_hurts_nobody()
    {
        using TestDriver driver = new();
        await using VirtioBlock device = new(driver.Memory, new MemoryBlockDevice(DiskSize), "disk", failed: _ => { }, driver.Interrupt);
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

    private static void MakeRequests(GuestMemory memory, Random random)
    {
        for (int descriptor = random.Next(1, 6); descriptor > 0; descriptor--)
        {
            // Mostly in the ring, at times in a table that an indirect descriptor may lead to.
            long at = (random.Next(4) == 0 ? 0x8000 : TestDriver.Descriptors) + random.Next(TestDriver.QueueSize) * 16;
            memory.Write(at, random.Next(12) == 0 ? (ulong)Number(random) << random.Next(33) : (ulong)(0x8000 + random.Next(16) * 16));
            memory.Write(at + 8, random.Next(8) switch { 0 => Number(random), 1 => 1u, 2 => 16u, 3 => 256u, _ => (uint)random.Next(5) * 512 });
            memory.Write(at + 12, random.Next(30) == 0 ? (ushort)random.Next(65536) : (ushort)(random.Next(8) & (random.Next(6) == 0 ? 7 : 3)));
            memory.Write(at + 14, random.Next(40) == 0 ? (ushort)random.Next(65536) : (ushort)random.Next(TestDriver.QueueSize));
        }

        // Something like headers where descriptors lead to.
        long header = 0x8000 + random.Next(16) * 16;
        memory.Write(header, random.Next(10) == 0 ? Number(random) : (uint)random.Next(14));
        memory.Write(header + 8, random.Next(10) == 0 ? (ulong)Number(random) << 16 : (ulong)random.Next(DiskSize / 512));
        ushort index = memory.Read<ushort>(TestDriver.Available + 2);
        for (int request = random.Next(1, 4); request > 0; request--)
        {
            memory.Write(TestDriver.Available + 4 + 2 * (index++ % TestDriver.QueueSize), (ushort)random.Next(random.Next(50) == 0 ? 65536 : TestDriver.QueueSize));
        }

        memory.Write(TestDriver.Available, (ushort)random.Next(2));
        memory.Write(TestDriver.Available + 2, random.Next(100) == 0 ? (ushort)random.Next(65536) : index);
    }

    private static uint Number(Random random) => random.Next(4) switch
    {
        0 => (uint)random.Next(16),
        1 => uint.MaxValue >> random.Next(32),
        2 => 1u << random.Next(32),
        _ => (uint)random.NextInt64(1L << 32),
    };
}
