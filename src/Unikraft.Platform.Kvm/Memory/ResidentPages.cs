using System.Buffers.Binary;
using Microsoft.Win32.SafeHandles;

namespace Unikraft.Platform.Kvm.Memory;

/// <summary>Counts how much of a range of this process's addresses is in the host's memory.</summary>
internal static class ResidentPages
{
    private const string PageMap = "/proc/self/pagemap";
    private const int EntrySize = sizeof(ulong);
    private const int EntriesAtATime = 8192;

    /// <summary>Bit 63 of an entry: the page is present.</summary>
    private const ulong Present = 1UL << 63;

    /// <summary>The bytes of the pages that are present: own ones and ones shared with other mappings.</summary>
    internal static long CountBytes(nint address, int pages)
    {
        using SafeFileHandle file = File.OpenHandle(PageMap);
        byte[] entries = new byte[EntriesAtATime * EntrySize];
        long offset = (long)((ulong)address >> PageSize.Shift) * EntrySize;
        long present = 0;
        for (int left = pages; left > 0;)
        {
            int read = RandomAccess.Read(file, entries.AsSpan(0, Math.Min(left, EntriesAtATime) * EntrySize), offset);
            if (read < EntrySize)
            {
                break;
            }

            read -= read % EntrySize;
            for (int i = 0; i < read; i += EntrySize)
            {
                present += (BinaryPrimitives.ReadUInt64LittleEndian(entries.AsSpan(i)) & Present) != 0 ? 1 : 0;
            }

            offset += read;
            left -= read / EntrySize;
        }

        return present << PageSize.Shift;
    }
}
