using System.Security.Cryptography;
using System.Text;

namespace Unikraft.Platform.Kvm.Devices;

/// <summary>
/// The second serial port of a kernel: on it a program of the guest hears that the machine has become another one, and gets random bytes for the kernel's
/// generator, which no other clone gets. For kernels that have no driver for the generation id.
/// </summary>
/// <remarks>The protocol is that of docs/kernel-guests.md: a line for each new generation, and one for each question mark that the guest sends.</remarks>
internal sealed class GenerationPort
{
    internal const ushort FirstPort = 0x2F8;
    internal const uint Interrupt = 3;

    private const byte Question = (byte)'?';
    private const int SeedSize = 32;

    private readonly ConsoleInput _lines = new();
    private readonly byte[] _generation;

    /// <param name="line">Its interrupt line.</param>
    /// <param name="generation">The generation id that the machine begins with.</param>
    internal GenerationPort(IInterruptLine line, ReadOnlySpan<byte> generation)
    {
        _generation = generation.ToArray();
        Port = new SerialPort(line, _lines, Answer);
    }

    /// <summary>The port itself.</summary>
    internal SerialPort Port { get; }

    /// <summary>Tells the guest its generation id. The port has the state that the guest knows.</summary>
    internal void Tell()
    {
        Put();
        Port.OnInput();
    }

    private void Answer(ReadOnlySpan<byte> asked)
    {
        // The port looks for input when it has taken what was sent.
        if (asked.Contains(Question))
        {
            Put();
        }
    }

    private void Put()
    {
        Span<byte> seed = stackalloc byte[SeedSize];
        RandomNumberGenerator.Fill(seed);

        // It begins with an end of line as well: half of an earlier one may be left in the FIFO of a clone.
        _lines.Offer(Encoding.ASCII.GetBytes($"\n{Convert.ToHexStringLower(_generation)} {Convert.ToHexStringLower(seed)}\n"));
    }
}
