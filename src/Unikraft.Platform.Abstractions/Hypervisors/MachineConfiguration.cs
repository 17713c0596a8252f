namespace Unikraft.Platform.Hypervisors;

/// <summary>A machine to make.</summary>
public sealed record MachineConfiguration
{
    /// <summary>The UUID that the guest is told.</summary>
    public required Guid Uuid { get; init; }

    /// <summary>The name, which is also the guest's <c>argv[0]</c>.</summary>
    public required string Name { get; init; }

    /// <summary>The image to boot.</summary>
    public required GuestImage Image { get; init; }

    /// <summary>The number of vCPUs.</summary>
    public required int Vcpus { get; init; }

    /// <summary>The size of the memory in MiB.</summary>
    public required int MemoryMb { get; init; }

    /// <summary>The arguments behind <c>argv[0]</c>.</summary>
    public IReadOnlyList<string> Args { get; init; } = [];

    /// <summary>The environment.</summary>
    public IReadOnlyDictionary<string, string> Env { get; init; } = new Dictionary<string, string>(StringComparer.Ordinal);

    /// <summary>The disks, each in a slot of its own.</summary>
    public IReadOnlyList<MachineDisk> Disks { get; init; } = [];
}
