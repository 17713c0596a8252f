using System.Collections.Concurrent;
using Unikraft.Platform.Hypervisors;

namespace Unikraft.Platform.Storage;

/// <content>What the snapshots need of a machine: the directory may have been moved to another one, and may be moved once more.</content>
internal sealed partial class DataDirectory
{
    // Of snapshots with memory. Mostly they are of this host, and share what that is.
    private readonly ConcurrentDictionary<Guid, IReadOnlyDictionary<string, string>> _machines = [];
    private readonly Lazy<IReadOnlyDictionary<string, string>> _machine;

    internal string? FindIncompatibility(IReadOnlyDictionary<string, string> machine) =>
        ReferenceEquals(machine, _machine.Value) ? null : _hypervisor.GetFeature<ISnapshotFiles>()!.FindIncompatibility(machine);

    /// <summary>What a snapshot needs of a machine. Versions before 3 did not keep it: that of their snapshots is taken to be this one.</summary>
    internal IReadOnlyDictionary<string, string> MachineOf(Guid? snapshot) =>
        snapshot is { } id && _machines.TryGetValue(id, out IReadOnlyDictionary<string, string>? machine) ? machine : _machine.Value;

    private void NoteMachine(Guid snapshot, IReadOnlyDictionary<string, string> machine)
    {
        IReadOnlyDictionary<string, string> here = _machine.Value;
        _machines[snapshot] = machine.Count == here.Count && machine.All(entry => here.TryGetValue(entry.Key, out string? value) && string.Equals(value, entry.Value, StringComparison.Ordinal))
            ? here
            : machine;
    }

    private void RequireMachine(Guid snapshot)
    {
        if (FindIncompatibility(MachineOf(snapshot)) is { } missing)
        {
            string path = Path.Combine(_files.PathOf(SnapshotFolder), snapshot.ToString("D"));
            throw new IncompatibleMachineException(
                path,
                $"The snapshot '{path}' cannot be restored on this host: {missing}. Move the data directory '{Root}' back to a host like the one that it was taken on, or start anew from an image.");
        }
    }
}
