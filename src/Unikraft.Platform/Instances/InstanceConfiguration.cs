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
