namespace Unikraft.Platform.Volumes.Qcow2;

/// <summary>
/// The parts of L2 tables that are in memory: a bounded number of those that are as in the file, and all that were changed, which the
/// image stores before they become too many.
/// </summary>
/// <remarks>
/// Finding takes no lock. Who has found a slice may use it after it was replaced: its clusters are not used for anything else before all
/// requests have ended that may have seen it (see <see cref="RequestEpochs"/>).
/// </remarks>
internal sealed class L2Cache
{
    /// <summary>A slice has at most 512 entries, which are 4 KiB.</summary>
    internal const int MaxSliceBits = 9;

    private const int Ways = 4;

    private readonly IImageFile _file;
    private readonly MetadataClusters? _metadata;
    private readonly int _clusterBits;
    private readonly L2Slice?[] _slots;
    private readonly int _setMask;
    private readonly Dictionary<long, L2Slice> _changed = [];
    private readonly Lock _lock = new();
    private readonly int _sliceBytes;
    private readonly int _maxChanged;
    private int _victim;

    internal L2Cache(IImageFile file, int clusterBits, int cacheBytes, MetadataClusters? metadata)
    {
        _file = file;
        _clusterBits = clusterBits;
        _metadata = metadata;
        _sliceBytes = sizeof(ulong) << Math.Min(clusterBits - 3, MaxSliceBits);
        int sets = 1;
        while (sets * 2 * Ways * _sliceBytes <= cacheBytes)
        {
            sets *= 2;
        }

        _slots = new L2Slice?[sets * Ways];
        _setMask = sets - 1;
        _maxChanged = Math.Max(1, _slots.Length / 2);
    }

    internal bool HasTooManyChanges => _changed.Count >= _maxChanged;

    internal Dictionary<long, L2Slice>.ValueCollection Changed => _changed.Values;

    /// <summary>What is in memory, in bytes.</summary>
    internal long Bytes
    {
        get
        {
            lock (_lock)
            {
                return _slots.Concat(_changed.Values).Where(static slice => slice is not null).Distinct().Count() * (long)_sliceBytes;
            }
        }
    }

    internal L2Slice? Find(long index)
    {
        int set = ((int)index & _setMask) * Ways;
        for (int way = 0; way < Ways; way++)
        {
            if (Volatile.Read(ref _slots[set + way]) is { } slice && slice.Index == index)
            {
                return slice;
            }
        }

        return null;
    }

    /// <summary>Finds a slice or reads it from the file.</summary>
    internal L2Slice Get(long index, long fileOffset)
    {
        if (Find(index) is { } found)
        {
            return found;
        }

        // Held while reading, lest an older copy take the place of a newer one.
        lock (_lock)
        {
            if (Find(index) is { } other)
            {
                return other;
            }

            if (!_changed.TryGetValue(index, out L2Slice? slice))
            {
                slice = Load(index, fileOffset);
            }

            int set = ((int)index & _setMask) * Ways;
            _victim = (_victim + 1) % Ways;
            int way = Array.IndexOf(_slots, null, set, Ways) is >= 0 and var free ? free : set + _victim;
            Volatile.Write(ref _slots[way], slice);
            return slice;
        }
    }

    /// <summary>Keeps a slice that is about to change. The caller holds the lock of the allocation.</summary>
    internal void MarkChanged(L2Slice slice)
    {
        lock (_lock)
        {
            _changed[slice.Index] = slice;

            // It may have been replaced and read again since the caller found it.
            int set = ((int)slice.Index & _setMask) * Ways;
            for (int way = 0; way < Ways; way++)
            {
                if (_slots[set + way] is { } other && other.Index == slice.Index)
                {
                    Volatile.Write(ref _slots[set + way], slice);
                }
            }
        }
    }

    /// <summary>Writes a slice to the file.</summary>
    internal void Store(L2Slice slice) => EntryTable.Write(_file, slice.FileOffset, slice.Entries);

    /// <summary>All changes are durable. The caller holds the lock of the allocation.</summary>
    internal void ForgetChanges()
    {
        lock (_lock)
        {
            _changed.Clear();
        }
    }

    private L2Slice Load(long index, long fileOffset)
    {
        ulong[] entries = EntryTable.Read(_file, fileOffset, _sliceBytes / sizeof(ulong));
        if (_metadata is not null)
        {
            foreach (ulong entry in entries)
            {
                if (MappingEntry.KindOf(entry) == ClusterKind.Data)
                {
                    _metadata.ThrowIfAny(MappingEntry.Offset(entry) >> _clusterBits, 1);
                }
            }
        }

        return new L2Slice(index, fileOffset, entries);
    }
}
