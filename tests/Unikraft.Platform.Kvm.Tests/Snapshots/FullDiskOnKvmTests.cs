using Microsoft.Extensions.Logging.Abstractions;
using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Kvm.Memory;
using Unikraft.Platform.Kvm.Snapshots;
using Unikraft.Platform.Kvm.Snapshots.Files;
using Unikraft.Platform.Kvm.Tests.Testing;
using Unikraft.Platform.TestKit;
using ConsoleSession = Unikraft.Platform.Contracts.ConsoleSession;
using HostFileSystem = Unikraft.Platform.Kvm.Interop.HostFileSystem;

namespace Unikraft.Platform.Kvm.Tests.Snapshots;

/// <summary>Snapshots and data directories on a disk that is really full.</summary>
[RequiresMount]
public sealed class FullDiskOnKvmTests : KvmTest
{
    /// <remarks>Each page more lets a saving get farther. What failed is in the memory of the machine only, and what comes next has all of it.</remarks>
    [ContractTheory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task What_is_saved_when_there_is_room_again_has_every_page(bool hasLog)
    {
        await using SmallFileSystem disk = await SmallFileSystem.MountAsync(sizeMb: 64);
        string folder = Path.Combine(disk.Path, "snapshots");
        await using SnapshotDirectory directory = SnapshotDirectory.Open(
            HostFileSystem.Instance,
            folder,
            NullLogger.Instance,
            hasLog ? new PublicationLogOptions(new ManualTimeProvider()) { Length = 1 << 20, Threshold = 1 } : null,
            space: null,
            CancellationToken.None);
        await using TestMachine machine = await BootAsync("counter", 1, 16, "--period-ms", "0", "--random", "--pages", "30", "--arena-mb", "8");
        await machine.TickAsync();
        await SaveAsync();
        await directory.Preparing.Guarded();
        Assert.Equal(hasLog, File.Exists(Path.Combine(folder, LogFormat.Name)));
        int failures = 0;
        for (int pages = 0; pages < 80; pages += 6)
        {
            disk.Fill(pages);
            await machine.TickAsync();
            IReadOnlyList<Guid> before = directory.List();
            using (IMachineSnapshot snapshot = await machine.CaptureAsync())
            {
                try
                {
                    await directory.SaveAsync(Guid.NewGuid(), snapshot).Guarded();
                }
                catch (StorageException error)
                {
                    failures++;
                    Assert.True(error.IsFull, error.ToString());
                    Assert.Equal(before.Order(), directory.List().Order());
                }
            }

            await machine.TickAsync();
            disk.Free();
            await SaveAsync();
        }

        Assert.InRange(failures, hasLog ? 0 : 5, int.MaxValue);

        async Task SaveAsync()
        {
            await machine.Machine.PauseAsync();
            using IMachineSnapshot snapshot = await machine.CaptureAsync();
            byte[] memory = machine.Memory.Read(0, (int)machine.Memory.Size).ToArray();
            machine.Machine.Resume();
            Guid id = Guid.NewGuid();
            await directory.SaveAsync(id, snapshot).Guarded();
            using KvmSnapshot opened = (KvmSnapshot)await directory.OpenAsync(id).Guarded();
            using GuestMemory restored = new(memory.Length);
            using PageMap map = opened.ShareMemory();
            restored.Install(map);
            Assert.True(memory.AsSpan().SequenceEqual(restored.Read(0, memory.Length)));
        }
    }

    [ContractFact]
    public async Task The_floor_of_a_data_directory_holds_whatever_is_saved()
    {
        const long Floor = 24 << 20;
        await using SmallPlatform small = await SmallPlatform.StartAsync(
            sizeMb: 192,
            static (options, path) => (options.DataDirectory, options.MinFreeDiskBytes) = (Path.Combine(path, "data"), Floor));
        IUnikraftPlatform platform = small.Platform;
        List<string> saved = [];
        Instance source = await platform.Instances.CreateAsync(new CreateInstanceRequest
        {
            Image = GuestImages.Get("counter"),
            MemoryMb = 64,
            Args = ["--period-ms", "0", "--random", "--pages", "400", "--arena-mb", "48"],
            WaitTimeout = Timeout.InfiniteTimeSpan,
        }).Guarded();
        await using (ConsoleSession console = new(platform.Instances.AttachConsole(source.Uuid)))
        {
            StorageException? full = null;
            for (int i = 0; full is null; i++)
            {
                Assert.InRange(i, 0, 400);
                await console.TickAsync();
                try
                {
                    string name = $"point-{i}";
                    await platform.Checkpoints
                        .CreateAsync(new CreateCheckpointRequest { From = source.Uuid, Name = name, WaitTimeout = Timeout.InfiniteTimeSpan })
                        .Guarded();
                    saved.Add(name);
                }
                catch (StorageException error)
                {
                    full = error;
                }

                Assert.InRange(new DriveInfo(small.Disk.Path).AvailableFreeSpace, Floor, long.MaxValue);
            }

            Assert.True(full.IsFull);
            Assert.InRange(saved.Count, 10, 400);
            Assert.Equal(saved.Order(StringComparer.Ordinal), platform.Checkpoints.List().Select(static point => point.Name).Order(StringComparer.Ordinal));
            Assert.Equal(InstanceState.Running, platform.Instances.Get(source.Uuid).State);
            await console.TickAsync();

            // Nothing but what is deleted makes room, and then there is some.
            foreach (string name in saved)
            {
                await platform.Checkpoints.DeleteAsync(name).Guarded();
            }

            await platform.Checkpoints
                .CreateAsync(new CreateCheckpointRequest { From = source.Uuid, Name = "again", WaitTimeout = Timeout.InfiniteTimeSpan })
                .Guarded();
        }

        await small.RestartAsync(() => Assert.InRange(new DriveInfo(small.Disk.Path).AvailableFreeSpace, Floor, long.MaxValue));
        Assert.Equal(["again"], small.Platform.Checkpoints.List().Select(static point => point.Name));
        Assert.Empty(await small.Platform.Data!.VerifyAsync().Guarded());
    }
}
