namespace Unikraft.Platform.Kvm.Devices;

/// <summary>A device with registers in guest physical memory. Called on vCPU threads, with whatever the guest does.</summary>
internal interface IMmioDevice
{
    /// <summary>The guest reads.</summary>
    /// <param name="initiator">The vCPU that reads.</param>
    /// <param name="offset">Where, from the beginning of the device.</param>
    /// <param name="data">The bytes to fill in, 1 to 8.</param>
    void Read(IMmioInitiator initiator, ulong offset, Span<byte> data);

    /// <summary>The guest writes.</summary>
    /// <param name="initiator">The vCPU that writes.</param>
    /// <param name="offset">Where, from the beginning of the device.</param>
    /// <param name="data">The bytes, 1 to 8.</param>
    void Write(IMmioInitiator initiator, ulong offset, ReadOnlySpan<byte> data);
}
