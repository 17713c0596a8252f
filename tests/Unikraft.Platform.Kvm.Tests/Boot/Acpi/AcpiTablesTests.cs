using System.Buffers.Binary;
using System.Text;
using System.Text.RegularExpressions;
using Unikraft.Platform.Kvm.Boot.Acpi;
using Unikraft.Platform.Kvm.Boot.Kernels;
using Unikraft.Platform.Kvm.Tests.Testing;
using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Kvm.Tests.Boot.Acpi;

/// <summary>The tables as the reference compiler reads them.</summary>
[RequiresAcpiCompiler]
public sealed partial class AcpiTablesTests
{
    private const int Vcpus = 3;

    private static readonly VirtioWindow[] Devices = [new(0xD000_0000, 0x200, 16), new(0xD000_1000, 0x200, 17)];

    [Fact]
    public void Every_table_is_reached_from_the_root_and_sums_to_zero()
    {
        byte[] bytes = AcpiTables.Create(KernelLayout.AcpiTables, Vcpus, Devices).Bytes.ToArray();

        Assert.Equal("RSD PTR ", Encoding.ASCII.GetString(bytes, 0, 8));
        Assert.Equal((0, 0), (Sum(bytes.AsSpan(0, 20)), Sum(bytes.AsSpan(0, 36))));
        Assert.Equal(["APIC", "DSDT", "FACP", "XSDT"], Tables(bytes).Keys.Order(StringComparer.Ordinal));
        Assert.All(Tables(bytes).Values, static table => Assert.Equal(0, Sum(table)));
    }

    [Fact]
    public void The_largest_machine_fits_below_1_MiB()
    {
        VirtioWindow[] devices = [.. Enumerable.Range(0, 64).Select(static i => new VirtioWindow(0xD000_0000 + (uint)i * 0x1000, 0x200, (uint)i))];
        Assert.InRange(AcpiTables.Create(KernelLayout.AcpiTables, 255, devices).Bytes.Length, 1, 0x2_0000);
    }

    [ContractFact]
    public async Task The_definitions_disassemble_to_what_they_mean()
    {
        string text = Whitespace().Replace(await DisassembleAsync("DSDT"), " ");

        Assert.Contains("""Name (\_S5, Package (0x01) // _S5_: S5 System State { 0x05 })""", text, StringComparison.Ordinal);
        Assert.Contains(
            """Device (COM1) { Name (_HID, EisaId ("PNP0501") /* 16550A-compatible COM Serial Port */) // _HID: Hardware ID Name (_UID, Zero) // _UID: Unique ID """
            + "Name (_CRS, ResourceTemplate () // _CRS: Current Resource Settings { IO (Decode16, 0x03F8, // Range Minimum 0x03F8, // Range Maximum "
            + "0x01, // Alignment 0x08, // Length ) Interrupt (ResourceConsumer, Edge, ActiveHigh, Exclusive, ,, ) { 0x00000004, } }) }",
            text,
            StringComparison.Ordinal);
        Assert.Contains("""Device (RTC) { Name (_HID, EisaId ("PNP0B00") /* AT Real-Time Clock */)""", text, StringComparison.Ordinal);
        Assert.Contains("""Device (PWRB) { Name (_HID, EisaId ("PNP0C0C") /* Power Button Device */)""", text, StringComparison.Ordinal);
        Assert.Contains(
            """Name (_HID, "ACPI0013" /* Generic Event Device */)""",
            text,
            StringComparison.Ordinal);
        Assert.Contains(
            "OperationRegion (EVTR, SystemIO, 0x0604, One) Field (EVTR, ByteAcc, NoLock, Preserve) { EVTS, 8 } "
            + "Method (_EVT, 1, NotSerialized) // _EVT: Event { Local0 = EVTS /* \\_SB_.GED_.EVTS */ If ((Local0 & One)) { "
            + "Notify (\\_SB.PWRB, 0x80) // Status Change } If ((Local0 & 0x02)) { Notify (\\_SB.VGEN, 0x80) // Status Change } }",
            text,
            StringComparison.Ordinal);
        Assert.Contains(
            """Device (VR01) { Name (_HID, "LNRO0005") // _HID: Hardware ID Name (_UID, One) // _UID: Unique ID Name (_CCA, One) // _CCA: Cache Coherency Attribute """
            + "Name (_CRS, ResourceTemplate () // _CRS: Current Resource Settings { Memory32Fixed (ReadWrite, 0xD0001000, // Address Base "
            + "0x00000200, // Address Length ) Interrupt (ResourceConsumer, Edge, ActiveHigh, Exclusive, ,, ) { 0x00000011, } }) }",
            text,
            StringComparison.Ordinal);
    }

    /// <summary>Long packages take lengths of more than one byte; a wrong one would not compile again.</summary>
    [ContractFact]
    public async Task The_definitions_compile_again_to_the_same_bytes()
    {
        VirtioWindow[] devices = [.. Enumerable.Range(0, 64).Select(static i => new VirtioWindow(0xD000_0000 + (uint)i * 0x1000, 0x200, 16 + (uint)i))];
        foreach (VirtioWindow[] some in new[] { [], Devices, devices })
        {
            await InFolderAsync(async folder =>
            {
                byte[] original = Tables(AcpiTables.Create(KernelLayout.AcpiTables, 1, some).Bytes)["DSDT"];
                string file = Path.Combine(folder, "dsdt.aml");
                await File.WriteAllBytesAsync(file, original);
                await RunAsync("-d", file);
                // Without optimisation: it would shorten names.
                await RunAsync("-oa", "-p", Path.Combine(folder, "again"), Path.ChangeExtension(file, ".dsl"));
                byte[] again = await File.ReadAllBytesAsync(Path.Combine(folder, "again.aml"));
                // The compiler writes its own name and version into the header.
                Assert.Equal(original[36..], again[36..]);
                return "";
            });
        }
    }

    [ContractFact]
    public async Task The_fixed_description_has_no_fixed_hardware_but_a_reset_register()
    {
        string text = Whitespace().Replace(await DisassembleAsync("FACP"), " ");
        Assert.Contains("Revision : 06", text, StringComparison.Ordinal);
        Assert.Contains("FADT Minor Revision : 05", text, StringComparison.Ordinal);
        Assert.Contains("Hardware Reduced (V5) : 1", text, StringComparison.Ordinal);
        Assert.Contains("Reset Register Supported (V2) : 1", text, StringComparison.Ordinal);
        Assert.Contains("Control Method Power Button (V1) : 1", text, StringComparison.Ordinal);
        Assert.Contains("8042 Present on ports 60/64 (V2) : 0", text, StringComparison.Ordinal);
        Assert.Contains("CMOS RTC Not Present (V5) : 0", text, StringComparison.Ordinal);
        Assert.Contains("Value to cause reset : FE", text, StringComparison.Ordinal);
        Assert.Matches("Reset Register : .* Space ID : 01 .* Address : 0000000000000064 ", text);
        Assert.Matches("Sleep Control Register : .* Address : 0000000000000600 ", text);
        Assert.Matches("Sleep Status Register : .* Address : 0000000000000601 ", text);
        Assert.Matches("DSDT Address : 00000000000E00[0-9A-F]0 ", text);
        Assert.DoesNotContain("Incorrect checksum", text, StringComparison.OrdinalIgnoreCase);
    }

    [ContractFact]
    public async Task The_interrupt_controllers_are_one_for_each_vcpu_and_one_for_devices()
    {
        string text = Whitespace().Replace(await DisassembleAsync("APIC"), " ");
        Assert.Contains("Local Apic Address : FEE00000", text, StringComparison.Ordinal);
        Assert.Equal(Vcpus, text.Split("Subtable Type : 00 [Processor Local APIC]").Length - 1);
        Assert.Contains("Processor ID : 02", text, StringComparison.Ordinal);
        Assert.Contains("Local Apic ID : 02", text, StringComparison.Ordinal);
        Assert.Contains("Processor Enabled : 1", text, StringComparison.Ordinal);
        Assert.Contains("I/O Apic ID : 00", text, StringComparison.Ordinal);
        Assert.Contains("Address : FEC00000 ", text, StringComparison.Ordinal);
    }

    private static Task<string> DisassembleAsync(string signature) => InFolderAsync(async folder =>
    {
        string file = Path.Combine(folder, signature + ".aml");
        await File.WriteAllBytesAsync(file, Tables(AcpiTables.Create(KernelLayout.AcpiTables, Vcpus, Devices).Bytes)[signature]);
        await RunAsync("-d", file);
        return await File.ReadAllTextAsync(Path.ChangeExtension(file, ".dsl"));
    });

    private static async Task RunAsync(params string[] arguments)
    {
        ProcessResult result = await ProcessResult.RunAsync("iasl", arguments).Guarded();
        Assert.True(result.ExitCode == 0, result.Output);
    }

    private static async Task<string> InFolderAsync(Func<string, Task<string>> action)
    {
        DirectoryInfo folder = Directory.CreateTempSubdirectory("unikraft-acpi-");
        try
        {
            return await action(folder.FullName);
        }
        finally
        {
            folder.Delete(recursive: true);
        }
    }

    /// <summary>Follows the pointers as a kernel does.</summary>
    private static Dictionary<string, byte[]> Tables(ReadOnlySpan<byte> bytes)
    {
        Dictionary<string, byte[]> tables = new(StringComparer.Ordinal);
        byte[] root = Add(bytes, BinaryPrimitives.ReadInt64LittleEndian(bytes[24..]));
        for (int i = 36; i < root.Length; i += 8)
        {
            byte[] table = Add(bytes, BinaryPrimitives.ReadInt64LittleEndian(root.AsSpan(i)));
            if (Encoding.ASCII.GetString(table, 0, 4) is "FACP")
            {
                Add(bytes, BinaryPrimitives.ReadInt64LittleEndian(table.AsSpan(140)));
            }
        }

        return tables;

        byte[] Add(ReadOnlySpan<byte> all, long address)
        {
            int offset = (int)(address - KernelLayout.AcpiTables);
            byte[] table = all.Slice(offset, BinaryPrimitives.ReadInt32LittleEndian(all[(offset + 4)..])).ToArray();
            tables.Add(Encoding.ASCII.GetString(table, 0, 4), table);
            return table;
        }
    }

    private static int Sum(ReadOnlySpan<byte> bytes)
    {
        int sum = 0;
        foreach (byte one in bytes)
        {
            sum += one;
        }

        return sum & 0xFF;
    }

    [GeneratedRegex(@"\s+", RegexOptions.None, matchTimeoutMilliseconds: 10_000)]
    private static partial Regex Whitespace();
}
