using System.Buffers;
using System.Globalization;
using System.IO.Compression;

namespace Unikraft.Platform.Volumes.Qcow2;

/// <content>Where what is read comes from: the mapping, this file, and what is beneath it.</content>
internal sealed partial class Qcow2Image
{
    internal override void Read(long offset, Span<byte> buffer)
    {
        // Nothing is used for anything else any more in an image that is frozen, and most layers of a chain are.
        if (IsFrozen)
        {
            ReadRuns(offset, buffer);
            return;
        }

        int epoch = _epochs.Enter();
        try
        {
            ReadRuns(offset, buffer);
        }
        finally
        {
            _epochs.Exit(epoch);
        }
    }

    /// <summary>What the image itself has from an offset on, and for how many bytes.</summary>
    internal (ClusterKind Kind, int Length) Find(long offset, int length)
    {
        ClusterRun run = Map(offset, length);
        return (run.Kind, run.Length);
    }

    /// <summary>Whether a cluster of the disk is in this image, as data or as zeroes.</summary>
    internal bool Has(long cluster) => Map(cluster << _clusterBits, 1).Kind != ClusterKind.Unallocated;

    /// <summary>Finds where a range begins, and how far it stays there.</summary>
    private ClusterRun Map(long offset, int length)
    {
        long cluster = offset >> _clusterBits;
        int inCluster = (int)(offset & (ClusterSize - 1));
        ulong[] l1 = Volatile.Read(ref _l1);
        ulong l1Entry = Volatile.Read(ref l1[cluster >> _l2Bits]);
        if (l1Entry == 0)
        {
            long toEnd = ((((cluster >> _l2Bits) + 1) << _l2Bits) << _clusterBits) - offset;
            return new ClusterRun(ClusterKind.Unallocated, (int)Math.Min(length, toEnd));
        }

        L2Slice slice = FindSlice(cluster, l1Entry);
        int index = (int)(cluster & (EntriesPerSlice - 1));
        ulong entry = slice[index];
        ClusterKind kind = Check(entry, cluster);
        long fileOffset = MappingEntry.Offset(entry);
        long run = ClusterSize - inCluster;
        if (kind == ClusterKind.Compressed)
        {
            return new ClusterRun(kind, (int)Math.Min(run, length), 0, entry);
        }

        for (long next = fileOffset + ClusterSize; run < length && ++index < EntriesPerSlice; next += ClusterSize)
        {
            ulong nextEntry = slice[index];
            if (MappingEntry.KindOf(nextEntry) != kind || (kind == ClusterKind.Data && MappingEntry.Offset(nextEntry) != next))
            {
                break;
            }

            _ = Check(nextEntry, ++cluster);
            run += ClusterSize;
        }

        return new ClusterRun(kind, (int)Math.Min(run, length), fileOffset + inCluster);
    }

    private L2Slice FindSlice(long cluster, ulong l1Entry)
    {
        long index = cluster >> _sliceBits;
        if (_l2.Find(index) is { } found)
        {
            return found;
        }

        long tableOffset = MappingEntry.Offset(l1Entry);
        if (!MappingEntry.IsWellFormedL1(l1Entry, _clusterBits) || tableOffset >> _clusterBits >= Volatile.Read(ref _clusters))
        {
            throw Corrupt(cluster);
        }

        int inTable = (int)(cluster & ((1 << _l2Bits) - 1)) & -EntriesPerSlice;
        return _l2.Get(index, tableOffset + inTable * sizeof(ulong));
    }

    /// <summary>What an entry says, once it is known to make sense in this file.</summary>
    private ClusterKind Check(ulong entry, long cluster)
    {
        ClusterKind kind = MappingEntry.KindOf(entry);
        bool isSound = MappingEntry.IsWellFormedL2(entry, _clusterBits) && (kind == ClusterKind.Compressed
            ? IsInFile(MappingEntry.CompressedRange(entry, _clusterBits).Offset)
            : kind is ClusterKind.Unallocated || IsInFile(MappingEntry.Offset(entry)));
        return isSound ? kind : throw Corrupt(cluster);
    }

    private bool IsInFile(long offset) => offset >> _clusterBits < Volatile.Read(ref _clusters);

    private BlockDeviceException Corrupt(long cluster) => new(
        BlockDeviceError.Corrupt,
        Path,
        string.Create(
            CultureInfo.InvariantCulture,
            $"The disk image '{Path}' is corrupt: cluster {cluster} of the disk is mapped to where there is none. Try qemu-img check -r all."));

    private void ReadRuns(long offset, Span<byte> buffer)
    {
        while (!buffer.IsEmpty)
        {
            ClusterRun run = Map(offset, buffer.Length);
            ReadRun(run, offset, buffer[..run.Length]);
            offset += run.Length;
            buffer = buffer[run.Length..];
        }
    }

    private void ReadRun(ClusterRun run, long offset, Span<byte> buffer)
    {
        switch (run.Kind)
        {
            case ClusterKind.Data:
                buffer[_file.Read(run.FileOffset, buffer)..].Clear();
                break;
            case ClusterKind.Compressed:
                Decompress(run.Entry).AsSpan((int)(offset & (ClusterSize - 1)), buffer.Length).CopyTo(buffer);
                break;
            case ClusterKind.Unallocated when _backing is not null:
                ReadBeneath(offset, buffer);
                break;
            default:
                buffer.Clear();
                break;
        }
    }

    private void ReadBeneath(long offset, Span<byte> buffer)
    {
        AncestorMap? ancestors = Volatile.Read(ref _ancestors);
        if (ancestors is null)
        {
            if (!_backing!.IsFrozen)
            {
                // It is prepared for a cut, and cannot be read by anybody yet but a test.
                ReadOrZero(_backing, offset, buffer);
                return;
            }

            ancestors = new AncestorMap(_backing, _clusterBits);
            Volatile.Write(ref _ancestors, ancestors);
        }

        ancestors.Read(offset, buffer);
    }

    private byte[] Decompress(ulong entry)
    {
        // Small reads come in rows, and compressed clusters are never written again.
        if (Volatile.Read(ref _decompressed) is { } last && last.Entry == entry)
        {
            return last.Data;
        }

        (long offset, int length) = MappingEntry.CompressedRange(entry, _clusterBits);
        byte[] compressed = ArrayPool<byte>.Shared.Rent(length);
        try
        {
            length = _file.Read(offset, compressed.AsSpan(0, length));
            byte[] data = new byte[ClusterSize];
            using MemoryStream source = new(compressed, 0, length, writable: false);
            using DeflateStream deflate = new(source, CompressionMode.Decompress);
            deflate.ReadExactly(data);
            Volatile.Write(ref _decompressed, new DecompressedCluster(entry, data));
            return data;
        }
        catch (Exception error) when (error is InvalidDataException or EndOfStreamException)
        {
            throw new BlockDeviceException(
                BlockDeviceError.Corrupt,
                Path,
                string.Create(
                    CultureInfo.InvariantCulture,
                    $"The disk image '{Path}' is corrupt: the compressed data at byte {offset} is damaged. Take a copy that is whole."),
                error);
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(compressed);
        }
    }

    private sealed record DecompressedCluster(ulong Entry, byte[] Data);
}
