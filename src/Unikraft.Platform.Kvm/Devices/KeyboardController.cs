namespace Unikraft.Platform.Kvm.Devices;

/// <summary>The one use that an i8042 without a keyboard has: its reset line. All other commands are taken and do nothing.</summary>
/// <param name="onReset">Called when the guest resets its machine.</param>
internal sealed class KeyboardController(Action onReset) : IMmioDevice
{
    internal const ushort FirstPort = 0x60;
    internal const byte Ports = 5;
    internal const ushort CommandPort = 0x64;

    /// <summary>Pulses the reset line.</summary>
    internal const byte ResetCommand = 0xFE;

    /// <remarks>Status 0: the input buffer is empty, so that a kernel does not wait for it; so is the output buffer.</remarks>
    public void Read(IMmioInitiator initiator, ulong offset, Span<byte> data) => data.Clear();

    public void Write(IMmioInitiator initiator, ulong offset, ReadOnlySpan<byte> data)
    {
        if (offset == CommandPort - FirstPort && data[0] == ResetCommand)
        {
            onReset();
        }
    }
}
