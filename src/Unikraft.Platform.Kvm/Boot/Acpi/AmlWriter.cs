using System.Buffers;
using System.Buffers.Binary;
using System.Text;

namespace Unikraft.Platform.Kvm.Boot.Acpi;

/// <summary>Writes ACPI machine language, the byte code of definition blocks.</summary>
/// <remarks>Encoding: ACPI Specification 6.5, chapter 20; resource descriptors: chapter 6.4.</remarks>
internal sealed class AmlWriter
{
    private const byte Extended = 0x5B;

    private readonly ArrayBufferWriter<byte> _code = new();

    internal ReadOnlySpan<byte> Code => _code.WrittenSpan;

    /// <summary>A reference to an object by its name: one segment of four characters, or a path with <c>\</c> and dots.</summary>
    internal AmlWriter Reference(string path)
    {
        const byte TwoSegments = 0x2E;
        if (path.StartsWith('\\'))
        {
            Bytes((byte)'\\');
            path = path[1..];
        }

        string[] segments = path.Split('.');
        if (segments.Length == 2)
        {
            Bytes(TwoSegments);
        }

        foreach (string segment in segments)
        {
            // Short names are filled up.
            _code.Write(Encoding.ASCII.GetBytes(segment.PadRight(4, '_')));
        }

        return this;
    }

    internal AmlWriter Integer(ulong value)
    {
        Span<byte> bytes = stackalloc byte[1 + sizeof(ulong)];
        BinaryPrimitives.WriteUInt64LittleEndian(bytes[1..], value);
        (bytes[0], int size) = value switch
        {
            0 or 1 => ((byte)value, 0),
            <= byte.MaxValue => ((byte)0x0A, 1),
            <= ushort.MaxValue => ((byte)0x0B, 2),
            <= uint.MaxValue => ((byte)0x0C, 4),
            _ => ((byte)0x0E, 8),
        };
        _code.Write(bytes[..(1 + size)]);
        return this;
    }

    internal AmlWriter Text(string text)
    {
        Bytes(0x0D);
        _code.Write(Encoding.ASCII.GetBytes(text));
        return Bytes(0);
    }

    /// <summary>An identifier such as PNP0C0C in its compressed form.</summary>
    internal AmlWriter EisaId(string id)
    {
        uint letters = (uint)(id[0] - '@') << 10 | (uint)(id[1] - '@') << 5 | (uint)(id[2] - '@');
        uint value = letters << 16 | Convert.ToUInt16(id[3..], 16);
        return Integer(BinaryPrimitives.ReverseEndianness(value));
    }

    internal AmlWriter Name(string path, Action<AmlWriter> value)
    {
        Bytes(0x08).Reference(path);
        value(this);
        return this;
    }

    internal AmlWriter Scope(string path, Action<AmlWriter> content) => Block([0x10], path, content);

    internal AmlWriter Device(string name, Action<AmlWriter> content) => Block([Extended, 0x82], name, content);

    internal AmlWriter Method(string name, int arguments, Action<AmlWriter> content) =>
        Block([0x14], name, body =>
        {
            body.Bytes((byte)arguments);
            content(body);
        });

    internal AmlWriter Package(params ReadOnlySpan<ulong> values)
    {
        AmlWriter elements = new();
        elements.Bytes((byte)values.Length);
        foreach (ulong value in values)
        {
            elements.Integer(value);
        }

        return Bytes(0x12).WithLength(elements);
    }

    /// <summary>A region of I/O ports, and one field in it.</summary>
    internal AmlWriter PortField(string region, ushort port, string field, int bytes)
    {
        const byte SystemIo = 1;
        const byte AccessByByte = 1;
        Bytes(Extended, 0x80).Reference(region).Bytes(SystemIo).Integer(port).Integer((ulong)bytes);
        AmlWriter fields = new();
        fields.Reference(region).Bytes(AccessByByte).Reference(field).Length(bytes * 8);
        return Bytes(Extended, 0x81).WithLength(fields);
    }

    /// <summary>Stores an object in the first local variable.</summary>
    internal AmlWriter StoreInLocal(string source) => Bytes(0x70).Reference(source).Bytes(0x60);

    /// <summary>Does something when a bit of the first local variable is set.</summary>
    internal AmlWriter IfLocalHas(ulong bit, Action<AmlWriter> content)
    {
        AmlWriter body = new();
        body.Bytes(0x7B, 0x60).Integer(bit).Bytes(0);
        content(body);
        return Bytes(0xA0).WithLength(body);
    }

    internal AmlWriter Notify(string device, ulong value) => Bytes(0x86).Reference(device).Integer(value);

    /// <summary>The resources that a device occupies.</summary>
    internal AmlWriter Resources(Action<AmlWriter> descriptors)
    {
        AmlWriter list = new();
        descriptors(list);
        list.Bytes(0x79, 0);
        AmlWriter buffer = new();
        buffer.Integer((ulong)list.Code.Length)._code.Write(list.Code);
        return Name("_CRS", name => name.Bytes(0x11).WithLength(buffer));
    }

    internal AmlWriter Ports(ushort first, byte count)
    {
        const byte Decodes16Bits = 1;
        Bytes(0x47, Decodes16Bits, (byte)first, (byte)(first >> 8), (byte)first, (byte)(first >> 8));
        return Bytes(1, count);
    }

    internal AmlWriter Memory(uint address, uint length)
    {
        Span<byte> descriptor = [0x86, 9, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
        BinaryPrimitives.WriteUInt32LittleEndian(descriptor[4..], address);
        BinaryPrimitives.WriteUInt32LittleEndian(descriptor[8..], length);
        _code.Write(descriptor);
        return this;
    }

    /// <summary>An edge-triggered interrupt, active high and not shared.</summary>
    internal AmlWriter Interrupt(uint number)
    {
        const byte ConsumedOnEdge = 0b11;
        Span<byte> descriptor = [0x89, 6, 0, ConsumedOnEdge, 1, 0, 0, 0, 0];
        BinaryPrimitives.WriteUInt32LittleEndian(descriptor[5..], number);
        _code.Write(descriptor);
        return this;
    }

    private AmlWriter Block(ReadOnlySpan<byte> operation, string name, Action<AmlWriter> content)
    {
        AmlWriter body = new();
        content(body.Reference(name));
        return Bytes(operation).WithLength(body);
    }

    private AmlWriter WithLength(AmlWriter body)
    {
        // The length counts its own bytes: 1 to 4 of them, of which the first holds 6 bits, or 4 when others follow.
        int length = body.Code.Length;
        int own = length + 1 < 1 << 6 ? 1 : length + 2 < 1 << 12 ? 2 : length + 3 < 1 << 20 ? 3 : 4;
        Length(length + own, own);
        _code.Write(body.Code);
        return this;
    }

    private AmlWriter Length(int value) => Length(value, value < 1 << 6 ? 1 : 2);

    private AmlWriter Length(int value, int bytes)
    {
        if (bytes == 1)
        {
            return Bytes((byte)value);
        }

        Bytes((byte)((bytes - 1) << 6 | value & 0xF));
        for (int i = 1; i < bytes; i++)
        {
            Bytes((byte)(value >> (8 * i - 4)));
        }

        return this;
    }

    private AmlWriter Bytes(params ReadOnlySpan<byte> bytes)
    {
        _code.Write(bytes);
        return this;
    }
}
