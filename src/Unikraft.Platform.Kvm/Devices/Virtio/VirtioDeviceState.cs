namespace Unikraft.Platform.Kvm.Devices.Virtio;

/// <summary>What a snapshot keeps of a virtio device: what its driver has set, and how far its queues are.</summary>
internal sealed record VirtioDeviceState
{
    internal uint Status { get; init; }

    internal ulong DriverFeatures { get; init; }

    internal uint DeviceFeaturesSelector { get; init; }

    internal uint DriverFeaturesSelector { get; init; }

    internal uint QueueSelector { get; init; }

    internal uint InterruptStatus { get; init; }

    internal required IReadOnlyList<QueueState> Queues { get; init; }

    /// <summary>A queue.</summary>
    /// <param name="Settings">What the driver has set.</param>
    /// <param name="IsReady">Whether the driver has made it ready.</param>
    /// <param name="NextAvailable">How many requests were taken.</param>
    /// <param name="NextUsed">How many requests were given back.</param>
    internal sealed record QueueState(VirtqueueSettings Settings, bool IsReady, ushort NextAvailable, ushort NextUsed);
}
