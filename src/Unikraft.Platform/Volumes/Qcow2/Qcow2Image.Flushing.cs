namespace Unikraft.Platform.Volumes.Qcow2;

/// <content>The order in which the mapping and the header go to the disk.</content>
internal sealed partial class Qcow2Image
{
    /// <summary>Makes durable what was complete before the call, in the layers beneath as well.</summary>
    internal void Flush()
    {
        ThrowIfFlushWasLost();
        _backing?.Seal();

        // A flush that begins after this does for this one too.
        long enough = Volatile.Read(ref _flushesBegun) + 1;
        if (!Volatile.Read(ref _isMappingChanged))
        {
            FlushFile();
            return;
        }

        lock (_allocation)
        {
            if (_flushesDone >= enough)
            {
                return;
            }

            Volatile.Write(ref _flushesBegun, _flushesBegun + 1);
            StoreMapping();
            _flushesDone = _flushesBegun;
        }
    }

    private void MarkDirty()
    {
        if (!_header.IsDirty)
        {
            Qcow2Header header = _header.Clone();
            header.IsDirty = true;
            WriteHeader(header);
        }
    }

    /// <summary>Changes the header, durably.</summary>
    private void WriteHeader(Qcow2Header header)
    {
        _file.Write(0, header.ToSector());
        FlushFile();
        _header = header;
    }

    /// <summary>Makes the mapping durable, after all that it maps to.</summary>
    private void StoreMapping()
    {
        ThrowIfFlushWasLost();
        FlushFile();
        if (!_isMappingChanged)
        {
            return;
        }

        foreach (L2Slice slice in _l2.Changed)
        {
            _l2.Store(slice);
        }

        foreach (int changed in _changedL1Sectors)
        {
            int first = changed * L1EntriesPerSector;
            int count = Math.Min(L1EntriesPerSector, _l1.Length - first);
            EntryTable.Write(_file, _header.L1Offset + first * sizeof(ulong), _l1.AsSpan(first, count));
        }

        FlushFile();
        _l2.ForgetChanges();
        _changedL1Sectors.Clear();
        Volatile.Write(ref _isMappingChanged, false);
        if (_draining.Count == 0 && _unlinked.Count > 0 && _epochs.HasDrained)
        {
            (_draining, _unlinked) = (_unlinked, _draining);
            _epochs.Advance();
        }
    }

    /// <summary>Stores everything there is, so that the file is as consistent as if it had been closed.</summary>
    private void StoreAll()
    {
        StoreMapping();
        if (!_header.IsDirty)
        {
            return;
        }

        // Nothing will be allocated any more, so it does not matter who is still reading.
        ReleaseDrained();
        (_draining, _unlinked) = (_unlinked, _draining);
        ReleaseDrained();

        _refcounts!.Store();

        // A file that has lost its end is told from one that ends there.
        if (_file.Length is var length && length % ClusterSize != 0)
        {
            _file.SetLength((length + ClusterSize - 1) & -(long)ClusterSize);
        }

        FlushFile();
        Qcow2Header header = _header.Clone();
        header.IsDirty = false;
        WriteHeader(header);
    }

    private void FlushFile()
    {
        try
        {
            _file.Flush();
        }
        catch (BlockDeviceException error)
        {
            // The host may have thrown the data away, and would report success the next time.
            _lostFlush ??= error;
            throw;
        }
    }

    private void ThrowIfFlushWasLost()
    {
        if (Volatile.Read(ref _lostFlush) is { } lost)
        {
            throw new BlockDeviceException(
                BlockDeviceError.InputOutput,
                Path,
                $"The host failed to flush '{Path}' before, and data that was not durable by then may be lost. Close the image, check the disk and open it again.",
                lost);
        }
    }
}
