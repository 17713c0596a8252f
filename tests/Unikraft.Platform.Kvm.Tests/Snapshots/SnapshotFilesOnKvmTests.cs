using System.Buffers.Binary;
using Microsoft.Extensions.Logging.Abstractions;
using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Kvm.Machines;
using Unikraft.Platform.Kvm.Memory;
using Unikraft.Platform.Kvm.Snapshots;
using Unikraft.Platform.Kvm.Snapshots.Files;
using Unikraft.Platform.Kvm.Tests.Testing;
using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Kvm.Tests.Snapshots;

/// <summary>Machines that continue from files.</summary>
public sealed class SnapshotFilesOnKvmTests : KvmTest
{
    [ContractFact]
    public async Task A_machine_continues_from_files_in_another_hypervisor()
    {
        using TestDirectory folder = new();
        Guid id = Guid.NewGuid();
        CounterLine first;
        await using (KvmHypervisor other = new(new KvmOptions(), new HypervisorContext(TimeProvider.System, NullLoggerFactory.Instance)))
        {
            RecordingMonitor monitor = new();
            MachineConfiguration configuration = Configuration(GuestImages.Get("counter"), 1, 32, "--period-ms", "0");
            await using TestMachine source = new(await other.CreateAsync(configuration, monitor), monitor);
            await source.Machine.StartAsync();
            first = await source.TickAsync();
            await source.SendAsync("mark kept");
            Assert.Equal("kept", await source.ShowAsync());
            using IMachineSnapshot snapshot = await source.CaptureAsync();
            await using ISnapshotDirectory directory = await OpenDirectoryAsync(other, folder.Path);
            await directory.SaveAsync(id, snapshot);
        }

        await using ISnapshotDirectory again = await OpenDirectoryAsync(Hypervisor, folder.Path);
        Assert.Equal([id], again.List());
        using IMachineSnapshot opened = await again.OpenAsync(id);
        await using TestMachine one = await RestoreAsync(opened);
        await using TestMachine two = await RestoreAsync(opened);
        await one.SendAsync("mark changed");
        Assert.Equal("changed", await one.ShowAsync());
        CounterLine[] lines = [await one.TickAsync(), await two.TickAsync()];

        // Restored, not rebooted; and what one of them writes reaches neither the other nor the file.
        Assert.All(lines, line => Assert.Equal((first.Nonce, 2), (line.Nonce, line.Tick)));
        Assert.Equal(3, lines.Select(line => line.Generation).Append(first.Generation).Distinct(StringComparer.Ordinal).Count());
        Assert.Equal("kept", await two.ShowAsync());
        Assert.True(one.Machine.HasReachedMain);
        Assert.Equal(0, one.Monitor.TimesMainReached);
        await again.VerifyAsync(id);
    }

    [ContractFact]
    public async Task A_chain_with_folds_in_between_opens_at_every_depth()
    {
        const int Depth = 5;
        using TestDirectory folder = new();
        await using ISnapshotDirectory directory = await OpenDirectoryAsync(Hypervisor, folder.Path);
        List<(Guid Id, byte[] Memory, bool IsFolded)> saved = [];
        TestMachine current = await BootAsync("counter", 1, 32, "--touch", "--period-ms", "0", "--random", "--pages", "700", "--arena-mb", "20");
        string nonce = (await current.TickAsync()).Nonce;
        for (int depth = 1; depth <= Depth; depth++)
        {
            await current.Machine.PauseAsync();
            using KvmSnapshot snapshot = (KvmSnapshot)await current.CaptureAsync();
            byte[] memory = current.Memory.Read(0, (int)current.Memory.Size).ToArray();
            current.Machine.Resume();
            await ((KvmMachine)current.Machine).Background.Guarded();
            using PageMap map = snapshot.ShareMemory();
            Guid id = Guid.NewGuid();
            await directory.SaveAsync(id, snapshot);
            saved.Add((id, memory, map.Layers.Any(static layer => layer.Origin is not null)));

            // The next one builds on what was read from files.
            await current.DisposeAsync();
            using IMachineSnapshot opened = await directory.OpenAsync(id);
            Assert.Equal(depth, opened.Depth);
            current = await RestoreAsync(opened);
            CounterLine line = await current.TickAsync();
            Assert.Equal((nonce, depth + 1), (line.Nonce, line.Tick));
        }

        await current.DisposeAsync();
        Assert.Contains(saved, entry => entry.IsFolded);
        foreach ((Guid id, byte[] memory, _) in saved)
        {
            using KvmSnapshot opened = (KvmSnapshot)await directory.OpenAsync(id);
            using GuestMemory restored = new(memory.Length);
            using PageMap map = opened.ShareMemory();
            restored.Install(map);
            Assert.True(memory.AsSpan().SequenceEqual(restored.Read(0, memory.Length)));
        }
    }

    [ContractFact]
    public async Task A_busy_guest_of_several_vcpus_continues_from_files_with_its_input()
    {
        using TestDirectory folder = new();
        await using ISnapshotDirectory directory = await OpenDirectoryAsync(Hypervisor, folder.Path);
        await using TestMachine source = await BootAsync("counter", 3, 37, "--smp", "--busy", "--period-ms", "0", "--rate", "20000", "--arena-mb", "8", "--quiet");
        CounterLine line = await source.TickAsync();
        await source.Machine.PauseAsync();
        await source.SendAsync("tick");
        Guid id = Guid.NewGuid();
        using (IMachineSnapshot snapshot = await source.CaptureAsync())
        {
            await directory.SaveAsync(id, snapshot);
        }

        using IMachineSnapshot opened = await directory.OpenAsync(id);
        await using TestMachine clone = await RestoreAsync(opened);

        // The input came with the snapshot.
        CounterLine next = CounterLine.Parse(await clone.Monitor.ReadLineAsync("nonce="));
        Assert.Equal((line.Nonce, line.Tick + 1, line.Cpus.Count), (next.Nonce, next.Tick, next.Cpus.Count));
        Assert.All(line.Cpus.Zip(next.Cpus), counts => Assert.True(counts.Second >= counts.First, "A vCPU began anew."));
    }

    [ContractFact]
    public async Task A_machine_keeps_the_layer_that_it_runs_on()
    {
        using TestDirectory folder = new();
        SnapshotDirectory directory = (SnapshotDirectory)await OpenDirectoryAsync(Hypervisor, folder.Path);
        await using TestMachine source = await BootAsync("counter", "--period-ms", "0");
        CounterLine line = await source.TickAsync();
        Guid id = Guid.NewGuid();
        using (IMachineSnapshot snapshot = await source.CaptureAsync())
        {
            await directory.SaveAsync(id, snapshot);
        }

        IMachineSnapshot opened = await directory.OpenAsync(id);
        TestMachine clone = await RestoreAsync(opened);
        opened.Dispose();
        await directory.DeleteAsync(id);
        Assert.Single(folder.Files);
        Assert.Equal((line.Nonce, 2), (await clone.TickAsync()) is var next ? (next.Nonce, next.Tick) : default);

        // What it becomes builds on that layer, and writes only what is new.
        using IMachineSnapshot branch = await clone.CaptureAsync();
        Guid second = Guid.NewGuid();
        await directory.SaveAsync(second, branch);
        await clone.DisposeAsync();
        Assert.InRange(folder.Files.Count, 2, 3);
        branch.Dispose();
        await directory.DeleteAsync(second);
        await Hypervisor.ReclaimAsync().Guarded();
        await directory.Collecting.Guarded();
        Assert.Empty(folder.Files);
        await directory.DisposeAsync();
    }

    [ContractFact]
    public async Task A_damaged_file_is_found_before_a_machine_runs_on_it()
    {
        using TestDirectory folder = new();
        await using ISnapshotDirectory directory = await OpenDirectoryAsync(Hypervisor, folder.Path);
        await using TestMachine source = await BootAsync("counter", 1, 16, "--period-ms", "0", "--arena-mb", "1");
        Guid id = Guid.NewGuid();
        using (IMachineSnapshot snapshot = await source.CaptureAsync())
        {
            await directory.SaveAsync(id, snapshot);
        }

        string layer = Path.Combine(folder.Path, folder.Files.Single(name => name.EndsWith(".layer", StringComparison.Ordinal)));
        byte[] file = await File.ReadAllBytesAsync(layer);
        file[file.Length / 2] ^= 1;
        await File.WriteAllBytesAsync(layer, file);

        SnapshotFileException error = await Assert.ThrowsAsync<SnapshotFileException>(() => directory.OpenAsync(id));
        Assert.Equal((layer, SnapshotFileError.Damaged), (error.Path, error.Error));
    }

    [ContractFact]
    public async Task Registers_that_make_no_sense_end_one_machine_and_nothing_else()
    {
        const int Vcpu = 128;
        const int VcpuSize = 5184;
        const int Cases = 150;
        using TestDirectory folder = new();
        await using ISnapshotDirectory directory = await OpenDirectoryAsync(Hypervisor, folder.Path);
        await using TestMachine source = await BootAsync("counter", 1, 16, "--period-ms", "0", "--arena-mb", "1");
        CounterLine line = await source.TickAsync();
        Guid id = Guid.NewGuid();
        using (IMachineSnapshot snapshot = await source.CaptureAsync())
        {
            await directory.SaveAsync(id, snapshot);
        }

        byte[] sound = await File.ReadAllBytesAsync(folder.StateOf(id));
        int vcpu = Vcpu + 24 * BinaryPrimitives.ReadInt32LittleEndian(sound.AsSpan(100));
        Random random = new(61);
        int refused = 0;
        for (int i = 0; i < Cases; i++)
        {
            byte[] file = [.. sound];
            for (int mutations = random.Next(1, 6); mutations > 0; mutations--)
            {
                // Registers lie in front of the extended state, which is mostly unused.
                int offset = vcpu + 32 + (random.Next(3) == 0 ? random.Next(VcpuSize - 32) : random.Next(1072 - 32));
                file[offset] = random.Next(2) == 0 ? (byte)random.Next(256) : (byte)(file[offset] ^ 1 << random.Next(8));
            }

            StateFile.Seal(file);
            await File.WriteAllBytesAsync(folder.StateOf(id), file);
            using IMachineSnapshot opened = await directory.OpenAsync(id);
            try
            {
                await using TestMachine machine = await RestoreAsync(opened);
                machine.Machine.Kill();
                await machine.Exited;
            }
            catch (HypervisorException)
            {
                refused++;
            }
        }

        await File.WriteAllBytesAsync(folder.StateOf(id), sound);
        using IMachineSnapshot last = await directory.OpenAsync(id);
        await using TestMachine clone = await RestoreAsync(last);
        Assert.Equal((line.Nonce, 2), (await clone.TickAsync()) is var next ? (next.Nonce, next.Tick) : default);
        Assert.InRange(refused, 1, Cases);
    }

    private static Task<ISnapshotDirectory> OpenDirectoryAsync(KvmHypervisor hypervisor, string path) =>
        Assert.IsAssignableFrom<ISnapshotFiles>(hypervisor.GetFeature<ISnapshotFiles>()).OpenDirectoryAsync(path).Guarded();
}
