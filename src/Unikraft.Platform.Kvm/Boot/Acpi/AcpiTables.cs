using System.Buffers.Binary;
using System.Globalization;
using System.Text;
using Unikraft.Platform.Kvm.Boot.Kernels;
using Unikraft.Platform.Kvm.Devices;

namespace Unikraft.Platform.Kvm.Boot.Acpi;

/// <summary>
/// The tables by which a kernel finds its processors, its devices, its power button and the ways to power off and reset. They describe a machine
/// without the fixed hardware of ACPI: its registers are those of <see cref="PowerDevice"/>.
/// </summary>
/// <remarks>Layouts: ACPI Specification 6.5, chapter 5.2.</remarks>
internal sealed class AcpiTables
{
    internal const uint LocalApicAddress = 0xFEE0_0000;
    internal const uint IoApicAddress = 0xFEC0_0000;

    /// <summary>The sleep type of power off, in the package of state S5 and in the sleep control register.</summary>
    internal const byte PowerOffType = 5;

    private const int RootPointerSize = 36;
    private const int HeaderSize = 36;
    private const int TableAlignment = 16;

    private const int ChecksumOffset = 9;
    private const int RootChecksumOffset = 8;
    private const int RootExtendedChecksumOffset = 32;
    private const int RootFirstPart = 20;

    private readonly byte[] _bytes;

    private AcpiTables(byte[] bytes) => _bytes = bytes;

    /// <summary>All tables, for the address they were made for. They begin with the root pointer.</summary>
    internal ReadOnlySpan<byte> Bytes => _bytes;

    /// <summary>Makes the tables of a machine.</summary>
    /// <param name="address">The guest physical address where they are going to be.</param>
    /// <param name="vcpus">The number of processors; their local APIC ids count from 0.</param>
    /// <param name="devices">The virtio-mmio devices.</param>
    internal static AcpiTables Create(long address, int vcpus, IReadOnlyList<VirtioWindow> devices)
    {
        byte[] definitions = Table("DSDT", 2, Definitions(devices));
        byte[] interrupts = Table("APIC", 5, InterruptControllers(vcpus));
        int definitionsAt = Align(RootPointerSize);
        int interruptsAt = Align(definitionsAt + definitions.Length);
        int fixedAt = Align(interruptsAt + interrupts.Length);
        byte[] description = Table("FACP", 6, FixedDescription((ulong)(address + definitionsAt)));
        int tablesAt = Align(fixedAt + description.Length);
        byte[] pointers = new byte[2 * sizeof(ulong)];
        BinaryPrimitives.WriteInt64LittleEndian(pointers, address + fixedAt);
        BinaryPrimitives.WriteInt64LittleEndian(pointers.AsSpan(sizeof(ulong)), address + interruptsAt);
        byte[] tables = Table("XSDT", 1, pointers);

        byte[] bytes = new byte[tablesAt + tables.Length];
        RootPointer(address + tablesAt).CopyTo(bytes, 0);
        definitions.CopyTo(bytes, definitionsAt);
        interrupts.CopyTo(bytes, interruptsAt);
        description.CopyTo(bytes, fixedAt);
        tables.CopyTo(bytes, tablesAt);
        return new AcpiTables(bytes);
    }

    private static byte[] RootPointer(long tables)
    {
        const byte Revision = 2;
        byte[] pointer = new byte[RootPointerSize];
        "RSD PTR "u8.CopyTo(pointer);
        "UKPLAT"u8.CopyTo(pointer.AsSpan(9));
        pointer[15] = Revision;
        BinaryPrimitives.WriteInt32LittleEndian(pointer.AsSpan(20), RootPointerSize);
        BinaryPrimitives.WriteInt64LittleEndian(pointer.AsSpan(24), tables);
        pointer[RootChecksumOffset] = Checksum(pointer.AsSpan(0, RootFirstPart));
        pointer[RootExtendedChecksumOffset] = Checksum(pointer);
        return pointer;
    }

    private static byte[] Table(string signature, byte revision, ReadOnlySpan<byte> content)
    {
        byte[] table = new byte[HeaderSize + content.Length];
        Encoding.ASCII.GetBytes(signature, table);
        BinaryPrimitives.WriteInt32LittleEndian(table.AsSpan(4), table.Length);
        table[8] = revision;
        "UKPLAT"u8.CopyTo(table.AsSpan(10));
        "UNIKRAFT"u8.CopyTo(table.AsSpan(16));
        BinaryPrimitives.WriteInt32LittleEndian(table.AsSpan(24), 1);
        "UKPL"u8.CopyTo(table.AsSpan(28));
        BinaryPrimitives.WriteInt32LittleEndian(table.AsSpan(32), 1);
        content.CopyTo(table.AsSpan(HeaderSize));
        table[ChecksumOffset] = Checksum(table);
        return table;
    }

    private static byte[] FixedDescription(ulong definitions)
    {
        const ushort NoVga = 1 << 2;
        const uint CachesCanBeFlushed = 1 << 0;
        const uint PowerButtonIsDevice = 1 << 4;
        const uint SleepButtonIsDevice = 1 << 5;
        const uint ResetIsSupported = 1 << 10;
        const uint NoFixedHardware = 1 << 20;
        const byte MinorVersion = 5;
        byte[] table = new byte[276 - HeaderSize];

        // Offsets are those of the table with its header.
        Span<byte> From(int offset) => table.AsSpan(offset - HeaderSize);
        BinaryPrimitives.WriteUInt16LittleEndian(From(109), NoVga);
        BinaryPrimitives.WriteUInt32LittleEndian(
            From(112),
            CachesCanBeFlushed | PowerButtonIsDevice | SleepButtonIsDevice | ResetIsSupported | NoFixedHardware);
        WritePort(From(116), KeyboardController.CommandPort);
        From(128)[0] = KeyboardController.ResetCommand;
        From(131)[0] = MinorVersion;
        BinaryPrimitives.WriteUInt64LittleEndian(From(140), definitions);
        WritePort(From(244), PowerDevice.FirstPort + PowerDevice.SleepControl);
        WritePort(From(256), PowerDevice.FirstPort + PowerDevice.SleepStatus);
        "UNIKRAFT"u8.CopyTo(From(268));
        return table;
    }

    /// <summary>A generic address of one byte of port space.</summary>
    private static void WritePort(Span<byte> address, int port)
    {
        const byte SystemIo = 1;
        const byte Bits = 8;
        const byte AccessByByte = 1;
        address[0] = SystemIo;
        address[1] = Bits;
        address[3] = AccessByByte;
        BinaryPrimitives.WriteUInt64LittleEndian(address[4..], (ulong)port);
    }

    private static byte[] InterruptControllers(int vcpus)
    {
        const byte LocalApic = 0;
        const byte LocalApicSize = 8;
        const byte IoApic = 1;
        const byte IoApicSize = 12;
        const uint Enabled = 1;
        byte[] table = new byte[8 + vcpus * LocalApicSize + IoApicSize];
        BinaryPrimitives.WriteUInt32LittleEndian(table, LocalApicAddress);
        for (int i = 0; i < vcpus; i++)
        {
            Span<byte> apic = table.AsSpan(8 + i * LocalApicSize);
            (apic[0], apic[1], apic[2], apic[3]) = (LocalApic, LocalApicSize, (byte)i, (byte)i);
            BinaryPrimitives.WriteUInt32LittleEndian(apic[4..], Enabled);
        }

        Span<byte> ioApic = table.AsSpan(8 + vcpus * LocalApicSize);
        (ioApic[0], ioApic[1]) = (IoApic, IoApicSize);
        BinaryPrimitives.WriteUInt32LittleEndian(ioApic[4..], IoApicAddress);
        return table;
    }

    private static ReadOnlySpan<byte> Definitions(IReadOnlyList<VirtioWindow> devices)
    {
        const ulong Pressed = 0x80;
        const ulong PresentAndHidden = 0xB;
        AmlWriter code = new();
        code.Name("\\_S5", name => name.Package(PowerOffType));
        code.Scope("\\_SB", system =>
        {
            system.Device("COM1", device => device
                .Name("_HID", name => name.EisaId("PNP0501"))
                .Name("_UID", name => name.Integer(0))
                .Resources(resources => resources
                    .Ports(SerialPort.FirstPort, SerialPort.Ports)
                    .Interrupt(SerialPort.Interrupt)));
            system.Device("COM2", device => device
                .Name("_HID", name => name.EisaId("PNP0501"))
                .Name("_UID", name => name.Integer(1))
                .Resources(resources => resources
                    .Ports(GenerationPort.FirstPort, SerialPort.Ports)
                    .Interrupt(GenerationPort.Interrupt)));

            // Without it Linux keeps what it has counted while it booted, and that is too little on a slow host.
            system.Device("RTC", device => device
                .Name("_HID", name => name.EisaId("PNP0B00"))
                .Resources(resources => resources.Ports(RealTimeClock.FirstPort, RealTimeClock.Ports)));
            system.Device("PWRB", device => device
                .Name("_HID", name => name.EisaId("PNP0C0C"))
                .Name("_UID", name => name.Integer(0)));
            system.Device("VGEN", device => device
                .Name("_HID", name => name.Text("UKPL0001"))
                .Name("_CID", name => name.Text("VM_Gen_Counter"))
                .Name("_DDN", name => name.Text("VM_Gen_Counter"))
                .Name("ADDR", name => name.Package((ulong)KernelLayout.GenerationId, 0)));
            system.Device("PEVT", device => device
                .Name("_HID", name => name.Text("QEMU0001"))
                .Name("_STA", name => name.Integer(PresentAndHidden))
                .Resources(resources => resources.Ports(KernelPlatformDevice.PanicPort, 1)));
            system.Device("GED", device => device
                .Name("_HID", name => name.Text("ACPI0013"))
                .Name("_UID", name => name.Integer(0))
                .Resources(resources => resources.Interrupt(PowerDevice.Interrupt))
                .PortField("EVTR", PowerDevice.FirstPort + PowerDevice.Events, "EVTS", bytes: 1)
                .Method("_EVT", arguments: 1, body => body
                    .StoreInLocal("EVTS")
                    .IfLocalHas(PowerDevice.PowerButtonEvent, pressed => pressed.Notify("\\_SB.PWRB", Pressed))
                    .IfLocalHas(PowerDevice.GenerationEvent, changed => changed.Notify("\\_SB.VGEN", Pressed))));
            for (int i = 0; i < devices.Count; i++)
            {
                VirtioWindow window = devices[i];
                ulong number = (ulong)i;
                system.Device(string.Create(CultureInfo.InvariantCulture, $"VR{i:X2}"), device => device
                    .Name("_HID", name => name.Text("LNRO0005"))
                    .Name("_UID", name => name.Integer(number))
                    .Name("_CCA", name => name.Integer(1))
                    .Resources(resources => resources.Memory(window.Address, window.Length).Interrupt(window.Interrupt)));
            }
        });
        return code.Code;
    }

    private static byte Checksum(ReadOnlySpan<byte> bytes)
    {
        byte sum = 0;
        foreach (byte one in bytes)
        {
            sum = unchecked((byte)(sum + one));
        }

        return unchecked((byte)-sum);
    }

    private static int Align(int offset) => (offset + TableAlignment - 1) & -TableAlignment;
}
