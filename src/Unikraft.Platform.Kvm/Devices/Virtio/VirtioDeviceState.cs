using System.Buffers.Binary;

namespace Unikraft.Platform.Kvm.Devices.Virtio;

/// <summary>What a snapshot keeps of a virtio device: what its driver has set, and how far its queues are.</summary>
internal sealed record VirtioDeviceState
{
    /// <summary>The number of bytes of <see cref="Write"/>.</summary>
    internal const int Size = 64;

    internal uint Status { get; init; }

    internal ulong DriverFeatures { get; init; }

    internal uint DeviceFeaturesSelector { get; init; }

    internal uint DriverFeaturesSelector { get; init; }

    internal uint QueueSelector { get; init; }

    internal uint InterruptStatus { get; init; }

    internal required IReadOnlyList<QueueState> Queues { get; init; }

    /// <summary>Reads what <see cref="Write"/> wrote; null when it could not have written it. Whether a device could have been in that state is for the caller to check.</summary>
    internal static VirtioDeviceState? Read(ReadOnlySpan<byte> source)
    {
        uint isReady = BinaryPrimitives.ReadUInt32LittleEndian(source[60..]);
        return isReady > 1
            ? null
            : new VirtioDeviceState
            {
                DriverFeatures = BinaryPrimitives.ReadUInt64LittleEndian(source),
                Status = BinaryPrimitives.ReadUInt32LittleEndian(source[8..]),
                DeviceFeaturesSelector = BinaryPrimitives.ReadUInt32LittleEndian(source[12..]),
                DriverFeaturesSelector = BinaryPrimitives.ReadUInt32LittleEndian(source[16..]),
                QueueSelector = BinaryPrimitives.ReadUInt32LittleEndian(source[20..]),
                InterruptStatus = BinaryPrimitives.ReadUInt32LittleEndian(source[24..]),
                Queues =
                [
                    new QueueState(
                        new VirtqueueSettings
                        {
                            Size = BinaryPrimitives.ReadUInt32LittleEndian(source[28..]),
                            Descriptors = BinaryPrimitives.ReadUInt64LittleEndian(source[32..]),
                            Available = BinaryPrimitives.ReadUInt64LittleEndian(source[40..]),
                            Used = BinaryPrimitives.ReadUInt64LittleEndian(source[48..]),
                        },
                        isReady == 1,
                        BinaryPrimitives.ReadUInt16LittleEndian(source[56..]),
                        BinaryPrimitives.ReadUInt16LittleEndian(source[58..])),
                ],
            };
    }

    /// <summary>Writes the state of a device with one queue, as docs/snapshot-format.md has it.</summary>
    internal void Write(Span<byte> destination)
    {
        QueueState queue = Queues[0];
        BinaryPrimitives.WriteUInt64LittleEndian(destination, DriverFeatures);
        BinaryPrimitives.WriteUInt32LittleEndian(destination[8..], Status);
        BinaryPrimitives.WriteUInt32LittleEndian(destination[12..], DeviceFeaturesSelector);
        BinaryPrimitives.WriteUInt32LittleEndian(destination[16..], DriverFeaturesSelector);
        BinaryPrimitives.WriteUInt32LittleEndian(destination[20..], QueueSelector);
        BinaryPrimitives.WriteUInt32LittleEndian(destination[24..], InterruptStatus);
        BinaryPrimitives.WriteUInt32LittleEndian(destination[28..], queue.Settings.Size);
        BinaryPrimitives.WriteUInt64LittleEndian(destination[32..], queue.Settings.Descriptors);
        BinaryPrimitives.WriteUInt64LittleEndian(destination[40..], queue.Settings.Available);
        BinaryPrimitives.WriteUInt64LittleEndian(destination[48..], queue.Settings.Used);
        BinaryPrimitives.WriteUInt16LittleEndian(destination[56..], queue.NextAvailable);
        BinaryPrimitives.WriteUInt16LittleEndian(destination[58..], queue.NextUsed);
        BinaryPrimitives.WriteUInt32LittleEndian(destination[60..], queue.IsReady ? 1u : 0);
    }

    /// <summary>A queue.</summary>
    /// <param name="Settings">What the driver has set.</param>
    /// <param name="IsReady">Whether the driver has made it ready.</param>
    /// <param name="NextAvailable">How many requests were taken.</param>
    /// <param name="NextUsed">How many requests were given back.</param>
    internal sealed record QueueState(VirtqueueSettings Settings, bool IsReady, ushort NextAvailable, ushort NextUsed);
}
