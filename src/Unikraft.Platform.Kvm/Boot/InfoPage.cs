using System.Buffers.Binary;
using System.Security.Cryptography;
using System.Text;
using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Kvm.Memory;

namespace Unikraft.Platform.Kvm.Boot;

/// <summary>The page that tells a flat guest about its machine, and the strings behind it.</summary>
internal static class InfoPage
{
    private const uint Magic = 0x4950_4B55;
    private const int GenerationIdSize = 16;

    private const long VersionOffset = 4;
    private const long RamBytesOffset = 8;
    private const long VcpusOffset = 16;
    private const long ArgumentCountOffset = 20;
    private const long ArgumentsOffset = 24;
    private const long EnvironmentOffset = 32;
    private const long HeapStartOffset = 40;
    private const long HeapEndOffset = 48;
    private const long TscKhzOffset = 56;
    private const long GenerationIdOffset = 64;
    private const long InstanceUuidOffset = 80;
    private const long EventsOffset = 96;
    private const long StackSizeOffset = 100;
    private const long DisksOffset = 104;
    private const long DiskCountOffset = 112;

    private const long DiskTable = FlatGuestLayout.InfoAddress + 0x400;
    private const int DiskEntrySize = 256;
    private const int DiskAtOffset = 8;
    private const uint DiskIsPresent = 1;
    private const uint DiskIsReadOnly = 2;

    /// <summary>Writes everything but what the host and the platform know.</summary>
    /// <exception cref="InvalidRequestException">Arguments and environment are too long.</exception>
    internal static void Write(GuestMemory memory, FlatGuestLayout layout, GuestStrings strings)
    {
        const long Base = FlatGuestLayout.InfoAddress;
        memory.Write(Base, Magic);
        memory.Write(Base + VersionOffset, FlatGuestLayout.AbiVersion);
        memory.Write(Base + RamBytesOffset, layout.MemorySize);
        memory.Write(Base + VcpusOffset, layout.Vcpus);
        memory.Write(Base + HeapStartOffset, layout.HeapStart);
        memory.Write(Base + HeapEndOffset, layout.MemorySize);
        memory.Write(Base + StackSizeOffset, FlatGuestLayout.StackSize);
        memory.Write(Base + ArgumentCountOffset, strings.Arguments.Count);
        memory.Write(Base + ArgumentsOffset, FlatGuestLayout.StringsAddress);

        long environment = FlatGuestLayout.StringsAddress + (strings.Arguments.Count + 1) * sizeof(ulong);
        memory.Write(Base + EnvironmentOffset, environment);
        long text = environment + (strings.Environment.Count + 1) * sizeof(ulong);
        text = WriteStrings(memory, FlatGuestLayout.StringsAddress, text, strings.Arguments);
        WriteStrings(memory, environment, text, strings.Environment);
    }

    /// <summary>Gives the guest an identity of its own: a random generation id and the UUID of its instance.</summary>
    internal static void WriteIdentity(GuestMemory memory, Guid uuid)
    {
        Span<byte> bytes = stackalloc byte[GenerationIdSize];
        RandomNumberGenerator.Fill(bytes);
        memory.Write(FlatGuestLayout.InfoAddress + GenerationIdOffset, bytes);
        uuid.TryWriteBytes(bytes, bigEndian: true, out _);
        memory.Write(FlatGuestLayout.InfoAddress + InstanceUuidOffset, bytes);
    }

    /// <summary>Tells the guest which disks there are. Nothing is said of those that were there before.</summary>
    internal static void WriteDisks(GuestMemory memory, IReadOnlyList<MachineDisk> disks)
    {
        memory.Write(FlatGuestLayout.InfoAddress + DisksOffset, DiskTable);
        memory.Write(FlatGuestLayout.InfoAddress + DiskCountOffset, MachineDisk.Slots);
        Span<byte> table = stackalloc byte[MachineDisk.Slots * DiskEntrySize];
        table.Clear();
        foreach (MachineDisk disk in disks)
        {
            Span<byte> entry = table.Slice(disk.Slot * DiskEntrySize, DiskEntrySize);
            BinaryPrimitives.WriteUInt32LittleEndian(entry, DiskIsPresent | (disk.Device.IsReadOnly ? DiskIsReadOnly : 0));
            Encoding.UTF8.GetBytes(disk.At, entry[DiskAtOffset..]);
        }

        memory.Write(DiskTable, table);
    }

    internal static void WriteTscKhz(GuestMemory memory, int khz) =>
        memory.Write(FlatGuestLayout.InfoAddress + TscKhzOffset, (ulong)khz);

    internal static void WriteEvents(GuestMemory memory, uint events) =>
        memory.Write(FlatGuestLayout.InfoAddress + EventsOffset, events);

    private static long WriteStrings(GuestMemory memory, long pointer, long text, IReadOnlyList<string> strings)
    {
        foreach (string value in strings)
        {
            int length = Encoding.UTF8.GetByteCount(value) + 1;
            if (text + length > FlatGuestLayout.StringsEnd)
            {
                throw new InvalidRequestException(
                    $"The arguments and the environment take more than the {(FlatGuestLayout.StringsEnd - FlatGuestLayout.StringsAddress) >> 10} KiB a flat guest has for them.");
            }

            memory.Fill(text, length, value, static (bytes, source) =>
            {
                bytes[Encoding.UTF8.GetBytes(source, bytes)] = 0;
                return bytes.Length;
            });
            memory.Write(pointer, text);
            pointer += sizeof(ulong);
            text += length;
        }

        return text;
    }
}
