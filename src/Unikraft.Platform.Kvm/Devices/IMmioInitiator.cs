namespace Unikraft.Platform.Kvm.Devices;

/// <summary>The vCPU on whose behalf a device is accessed.</summary>
internal interface IMmioInitiator
{
    int Index { get; }

    /// <summary>The stack pointer, in ring 0 that of the exception frame.</summary>
    ulong StackPointer { get; }

    /// <summary>CR2, the address of the last page fault.</summary>
    ulong FaultAddress { get; }
}
