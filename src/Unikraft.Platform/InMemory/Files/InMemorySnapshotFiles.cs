using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Storage;

namespace Unikraft.Platform.InMemory.Files;

/// <summary>Keeps snapshots of scripted guests in files, as far as the guests can be written down.</summary>
internal sealed class InMemorySnapshotFiles(InMemoryHypervisor hypervisor) : ISnapshotFiles
{
    private const string HypervisorKey = "hypervisor";

    public IReadOnlyDictionary<string, string> Machine { get; } =
        new Dictionary<string, string>(StringComparer.Ordinal) { [HypervisorKey] = hypervisor.Info.Name };

    public string? FindIncompatibility(IReadOnlyDictionary<string, string> machine) =>
        string.Equals(machine.GetValueOrDefault(HypervisorKey), hypervisor.Info.Name, StringComparison.Ordinal)
            ? null
            : $"it was taken on the hypervisor '{machine.GetValueOrDefault(HypervisorKey)}', and this is '{hypervisor.Info.Name}'";

    public Task<ISnapshotDirectory> OpenDirectoryAsync(string path, IDiskSpace? space = null, bool isSynced = true, CancellationToken cancellationToken = default)
    {
        ArgumentException.ThrowIfNullOrWhiteSpace(path);
        cancellationToken.ThrowIfCancellationRequested();
        return Task.FromResult<ISnapshotDirectory>(InMemorySnapshotDirectory.Open(
            hypervisor,
            new DataFiles(hypervisor.Files, Path.GetFullPath(path), isSynced),
            space));
    }
}
