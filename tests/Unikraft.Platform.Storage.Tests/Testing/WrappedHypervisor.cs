using Unikraft.Platform.Hypervisors;

namespace Unikraft.Platform.Storage.Tests.Testing;

/// <summary>A backend that tells what it boots, and may be able to take names to the disk.</summary>
internal sealed class WrappedHypervisor(IHypervisor inner) : IHypervisor
{
    internal IDirectorySync? Directories { get; init; }

    /// <summary>What is missing here of a machine, in words; <see langword="null"/> for what the backend says.</summary>
    internal Func<IReadOnlyDictionary<string, string>, string?>? Missing { get; init; }

    internal Action<MachineConfiguration>? Booting { get; init; }

    /// <summary>Told the disks of each machine.</summary>
    internal Action<Guid, IReadOnlyList<MachineDisk>>? Disks { get; init; }

    public HypervisorInfo Info => inner.Info;

    public ValueTask<IVirtualMachine> CreateAsync(MachineConfiguration configuration, IMachineMonitor monitor, CancellationToken cancellationToken = default)
    {
        Booting?.Invoke(configuration);
        Disks?.Invoke(configuration.Uuid, configuration.Disks);
        return inner.CreateAsync(configuration, monitor, cancellationToken);
    }

    public ValueTask<IVirtualMachine> RestoreAsync(
        IMachineSnapshot snapshot,
        Guid uuid,
        IMachineMonitor monitor,
        IReadOnlyList<MachineDisk> disks,
        CancellationToken cancellationToken = default)
    {
        Disks?.Invoke(uuid, disks);
        return inner.RestoreAsync(snapshot, uuid, monitor, disks, cancellationToken);
    }

    public TFeature? GetFeature<TFeature>()
        where TFeature : class => Directories as TFeature
            ?? (Missing is not null && inner.GetFeature<ISnapshotFiles>() is { } files ? new OtherMachine(files, Missing) as TFeature : null)
            ?? inner.GetFeature<TFeature>();

    public ValueTask DisposeAsync() => inner.DisposeAsync();

    /// <summary>Another host, on which the snapshots of others may not be restored.</summary>
    private sealed class OtherMachine(ISnapshotFiles inner, Func<IReadOnlyDictionary<string, string>, string?> missing) : ISnapshotFiles
    {
        public IReadOnlyDictionary<string, string> Machine { get; } = new Dictionary<string, string>(inner.Machine, StringComparer.Ordinal) { ["features"] = "of another host" };

        public string? FindIncompatibility(IReadOnlyDictionary<string, string> machine) => missing(machine);

        public Task<ISnapshotDirectory> OpenDirectoryAsync(string path, IDiskSpace? space = null, bool isSynced = true, CancellationToken cancellationToken = default) =>
            inner.OpenDirectoryAsync(path, space, isSynced, cancellationToken);
    }
}
