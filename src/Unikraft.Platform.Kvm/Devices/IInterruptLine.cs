namespace Unikraft.Platform.Kvm.Devices;

/// <summary>A line to the interrupt controller of a machine.</summary>
internal interface IInterruptLine
{
    /// <summary>Raises or lowers the line. Called with the lock of the device held, so that levels arrive in order.</summary>
    void Set(bool isHigh);
}
