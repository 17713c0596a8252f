namespace Unikraft.Platform.Kvm.Devices;

/// <summary>The registers of a <see cref="SerialPort"/>.</summary>
/// <param name="Divisor">The divisor of the baud rate, which changes nothing.</param>
/// <param name="InterruptEnable">Which interrupts are enabled.</param>
/// <param name="LineControl">The format of a character, and whether the divisor is accessible.</param>
/// <param name="ModemControl">The modem lines, and whether the port is looped back.</param>
/// <param name="Scratch">A byte of the guest's own.</param>
/// <param name="HasFifos">Whether the FIFOs are enabled.</param>
/// <param name="IsTransmitterEmptyPending">Whether the guest has not been told yet that it can send.</param>
/// <param name="Received">What is in the receiving FIFO.</param>
internal readonly record struct SerialPortState(
    ushort Divisor,
    byte InterruptEnable,
    byte LineControl,
    byte ModemControl,
    byte Scratch,
    bool HasFifos,
    bool IsTransmitterEmptyPending,
    ReadOnlyMemory<byte> Received)
{
    /// <summary>After a reset: 9600 baud, nothing enabled.</summary>
    internal static SerialPortState Initial { get; } = new(12, 0, 0, 0, 0, false, false, ReadOnlyMemory<byte>.Empty);
}
