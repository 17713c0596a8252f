namespace Unikraft.Platform.Volumes.Qcow2;

/// <summary>A part of an L2 table in memory. Entries are read without a lock and written by whoever holds that of the allocation.</summary>
internal sealed class L2Slice(long index, long fileOffset, ulong[] entries)
{
    /// <summary>Which slice of the disk's mapping it is.</summary>
    internal long Index { get; } = index;

    /// <summary>Where it is in the file.</summary>
    internal long FileOffset { get; } = fileOffset;

    internal ulong[] Entries { get; } = entries;

    internal ulong this[int entry]
    {
        get => Volatile.Read(ref Entries[entry]);
        set => Volatile.Write(ref Entries[entry], value);
    }
}
