using System.Collections.ObjectModel;
using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Resources;

namespace Unikraft.Platform.Instances;

/// <summary>What a branch, a loaded checkpoint or a cloned template inherits from its source.</summary>
internal sealed record InstanceConfiguration(
    GuestImage Image,
    int Vcpus,
    int MemoryMb,
    IReadOnlyList<string> Args,
    IReadOnlyDictionary<string, string> Env)
{
    /// <summary>What callers have noted. Nothing that a machine knows of.</summary>
    public IReadOnlyDictionary<string, string> Annotations { get; init; } = ReadOnlyDictionary<string, string>.Empty;

    public MachineConfiguration ForMachine(ResourceIdentity identity) => new()
    {
        Uuid = identity.Uuid,
        Name = identity.Name,
        Image = Image,
        Vcpus = Vcpus,
        MemoryMb = MemoryMb,
        Args = Args,
        Env = Env,
    };
}
