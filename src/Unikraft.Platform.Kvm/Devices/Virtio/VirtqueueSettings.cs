namespace Unikraft.Platform.Kvm.Devices.Virtio;

/// <summary>What a driver says about a queue.</summary>
internal sealed record VirtqueueSettings
{
    /// <summary>The number of descriptors.</summary>
    internal uint Size { get; init; }

    internal ulong Descriptors { get; init; }

    /// <summary>The address of the available ring.</summary>
    internal ulong Available { get; init; }

    /// <summary>The address of the used ring.</summary>
    internal ulong Used { get; init; }
}
