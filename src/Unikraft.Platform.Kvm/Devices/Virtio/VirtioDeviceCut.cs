namespace Unikraft.Platform.Kvm.Devices.Virtio;

/// <summary>Room for the state of a virtio device, made before the moment in which it is taken.</summary>
/// <param name="queues">How many queues the device has.</param>
internal sealed class VirtioDeviceCut(int queues)
{
    private readonly VirtqueueSettings[] _settings = new VirtqueueSettings[queues];
    private readonly (bool IsReady, ushort NextAvailable, ushort NextUsed)[] _positions = new (bool, ushort, ushort)[queues];

    internal uint Status { get; set; }

    internal ulong DriverFeatures { get; set; }

    internal uint DeviceFeaturesSelector { get; set; }

    internal uint DriverFeaturesSelector { get; set; }

    internal uint QueueSelector { get; set; }

    internal uint InterruptStatus { get; set; }

    internal void Take(int index, VirtqueueSettings settings, Virtqueue? queue)
    {
        _settings[index] = settings;
        _positions[index] = (queue is not null, queue?.NextAvailable ?? 0, queue?.NextUsed ?? 0);
    }

    /// <summary>The state that was taken.</summary>
    internal VirtioDeviceState ToState() => new()
    {
        Status = Status,
        DriverFeatures = DriverFeatures,
        DeviceFeaturesSelector = DeviceFeaturesSelector,
        DriverFeaturesSelector = DriverFeaturesSelector,
        QueueSelector = QueueSelector,
        InterruptStatus = InterruptStatus,
        Queues =
        [
            .. _settings.Zip(_positions, static (settings, position) => new VirtioDeviceState.QueueState(
                settings,
                position.IsReady,
                position.NextAvailable,
                position.NextUsed)),
        ],
    };
}
