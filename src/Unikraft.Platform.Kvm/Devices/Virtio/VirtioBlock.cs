using System.Buffers;
using System.Buffers.Binary;
using System.Text;
using Unikraft.Platform.Kvm.Memory;
using Unikraft.Platform.Volumes;

namespace Unikraft.Platform.Kvm.Devices.Virtio;

/// <summary>A disk of a guest: virtio-blk over a block device.</summary>
internal sealed class VirtioBlock : VirtioDevice
{
    /// <summary>The unit of all numbers of sectors, whatever the block size is.</summary>
    private const int SectorSize = 512;

    private const int HeaderSize = 16;
    private const int IdSize = 20;
    private const int RangeSize = 16;
    private const int ConfigurationSize = 60;

    private const int MaxSegmentBytes = 64 << 10;
    private const int MaxSegments = 126;
    private const int MaxRequestBytes = MaxSegmentBytes * MaxSegments;
    private const int MaxBytesUnderWay = 4 * MaxRequestBytes;
    private const int MaxRanges = 16;
    private const uint MaxRangeSectors = (1 << 30) / SectorSize;

    private readonly IBlockDevice _disk;
    private readonly Action<Exception> _failed;
    private readonly byte[] _id = new byte[IdSize];
    private readonly byte[] _configuration = new byte[ConfigurationSize];

    // A disk stays as it is as long as a machine has it. Asked for with every request.
    private readonly long _size;
    private readonly int _blockSize;
    private readonly bool _isReadOnly;
    private int _bytesUnderWay;

    /// <summary>Makes a disk.</summary>
    /// <param name="memory">The guest's memory.</param>
    /// <param name="disk">What is on it. Not owned.</param>
    /// <param name="id">What the guest knows it by: 20 ASCII characters at most.</param>
    /// <param name="failed">Told of each request that the disk could not do; the guest only sees that it failed. Called on any thread.</param>
    /// <param name="interrupt">Sets the level of the interrupt line; null for a guest that polls.</param>
    /// <param name="polls">Whether the driver polls: then vCPUs do requests themselves, and further ones are looked for for a moment when there are none.</param>
    internal VirtioBlock(GuestMemory memory, IBlockDevice disk, string id, Action<Exception> failed, Action<bool>? interrupt = null, bool polls = false)
        : base(memory, interrupt, queues: 1, polls)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThan(id.Length, IdSize, nameof(id));
        _disk = disk;
        _failed = failed;
        _ = Encoding.ASCII.GetBytes(id, _id);
        (_size, _blockSize, _isReadOnly) = (disk.Size, disk.BlockSize, disk.IsReadOnly);
        Features = FeaturesOf(_isReadOnly);

        Span<byte> span = _configuration;
        BinaryPrimitives.WriteInt64LittleEndian(span, _size / SectorSize);
        BinaryPrimitives.WriteInt32LittleEndian(span[8..], MaxSegmentBytes);
        BinaryPrimitives.WriteInt32LittleEndian(span[12..], MaxSegments);
        BinaryPrimitives.WriteInt32LittleEndian(span[20..], _blockSize);
        BinaryPrimitives.WriteUInt16LittleEndian(span[34..], 1);
        BinaryPrimitives.WriteUInt32LittleEndian(span[36..], MaxRangeSectors);
        BinaryPrimitives.WriteInt32LittleEndian(span[40..], MaxRanges);
        BinaryPrimitives.WriteInt32LittleEndian(span[44..], _blockSize / SectorSize);
        BinaryPrimitives.WriteUInt32LittleEndian(span[48..], MaxRangeSectors);
        BinaryPrimitives.WriteInt32LittleEndian(span[52..], MaxRanges);
        span[56] = 1;
    }

    [Flags]
    private enum Feature
    {
        SegmentSize = 1 << 1,
        Segments = 1 << 2,
        ReadOnly = 1 << 5,
        BlockSize = 1 << 6,
        Flush = 1 << 9,
        Discard = 1 << 13,
        WriteZeroes = 1 << 14,
    }

    private enum Operation : uint
    {
        Read = 0,
        Write = 1,
        Flush = 4,
        GetId = 8,
        Discard = 11,
        WriteZeroes = 13,
    }

    private enum Status : byte
    {
        Ok = 0,
        InputOutputError = 1,
        Unsupported = 2,
    }

    protected override uint DeviceId => 2;

    protected override ulong Features { get; }

    protected override ReadOnlySpan<byte> Configuration => _configuration;

    protected override bool HasRoom => Volatile.Read(ref _bytesUnderWay) < MaxBytesUnderWay;

    /// <summary>Whether a device could have been in a state.</summary>
    internal static bool CouldBe(VirtioDeviceState state, bool isReadOnly) => IsPossible(state, FeaturesOf(isReadOnly));

    private static ulong FeaturesOf(bool isReadOnly) =>
        (ulong)(Feature.SegmentSize | Feature.Segments | Feature.BlockSize | Feature.Flush)
        | (ulong)(isReadOnly ? Feature.ReadOnly : Feature.Discard | Feature.WriteZeroes);

    protected override ValueTask<int> HandleAsync(VirtqueueRequest request)
    {
        if (request.ReadableLength < HeaderSize || request.WritableLength < 1)
        {
            return ValueTask.FromException<int>(new InvalidDataException("A request has no header or no room for its status."));
        }

        // What is not the header or the status is data, however the driver has cut it into pieces.
        (Operation operation, ulong sector) = ReadHeader(request);
        long room = request.WritableLength - 1;
        return operation == Operation.Read && IsOnDisk(sector, room) && request.TryMapWritable((int)room, out Memory<byte> data)
            ? Read(request, sector, data)
            : CarryOutAsync(request, operation, sector);
    }

    /// <summary>Reads into guest memory, which is done by the time this returns as a rule: then it needs no state of its own.</summary>
    private ValueTask<int> Read(VirtqueueRequest request, ulong sector, Memory<byte> data)
    {
        ValueTask reading;
        try
        {
            reading = _disk.ReadAsync((long)sector * SectorSize, data);
        }
        catch (Exception error)
        {
            reading = ValueTask.FromException(error);
        }

        return reading.IsCompletedSuccessfully
            ? ValueTask.FromResult(Answer(request, Status.Ok, data.Length))
            : EndAsync(request, reading, data.Length);
    }

    private async ValueTask<int> EndAsync(VirtqueueRequest request, ValueTask reading, int length)
    {
        Interlocked.Add(ref _bytesUnderWay, length);
        try
        {
            await reading.ConfigureAwait(false);
            return Answer(request, Status.Ok, length);
        }
        catch (Exception error)
        {
            return Fail(request, error);
        }
        finally
        {
            Interlocked.Add(ref _bytesUnderWay, -length);
        }
    }

    private async ValueTask<int> CarryOutAsync(VirtqueueRequest request, Operation operation, ulong sector)
    {
        long given = request.ReadableLength - HeaderSize;
        long room = request.WritableLength - 1;
        int bytes = (int)Math.Min(MaxRequestBytes, given + room);
        Interlocked.Add(ref _bytesUnderWay, bytes);
        try
        {
            switch (operation)
            {
                case Operation.Read when IsOnDisk(sector, room):
                    await ReadPiecesAsync(request, sector, (int)room).ConfigureAwait(false);
                    return Answer(request, Status.Ok, (int)room);
                case Operation.Write when IsOnDisk(sector, given) && !_isReadOnly:
                    await WriteAsync(request, sector, (int)given).ConfigureAwait(false);
                    await MakeStableAsync().ConfigureAwait(false);
                    return Answer(request, Status.Ok);
                case Operation.Flush:
                    await _disk.FlushAsync().ConfigureAwait(false);
                    return Answer(request, Status.Ok);
                case Operation.GetId:
                    int written = (int)Math.Min(room, IdSize);
                    request.Write(0, _id.AsSpan(0, written));
                    return Answer(request, Status.Ok, written);
                case Operation.Discard or Operation.WriteZeroes when !_isReadOnly:
                    return Answer(request, await ZeroAsync(request, given, operation).ConfigureAwait(false));
                case Operation.Read or Operation.Write or Operation.Discard or Operation.WriteZeroes:
                    return Answer(request, Status.InputOutputError);
                default:
                    return Answer(request, Status.Unsupported);
            }
        }
        catch (Exception error)
        {
            return Fail(request, error);
        }
        finally
        {
            Interlocked.Add(ref _bytesUnderWay, -bytes);
        }
    }

    /// <summary>A driver that has not accepted the feature of flushes takes a disk for one without a write cache: what is answered is durable (virtio 1.2, section 5.2.6.2).</summary>
    private ValueTask MakeStableAsync() => (NegotiatedFeatures & (ulong)Feature.Flush) != 0 ? ValueTask.CompletedTask : _disk.FlushAsync();

    /// <summary>Whatever the disk throws, the guest gets an answer and the host hears of it.</summary>
    private int Fail(VirtqueueRequest request, Exception error)
    {
        _failed(error);
        return Answer(request, Status.InputOutputError);
    }

    /// <summary>Writes the status.</summary>
    /// <returns>How many bytes were written to the request.</returns>
    private static int Answer(VirtqueueRequest request, Status status, int written = 0)
    {
        request.Write(request.WritableLength - 1, [(byte)status]);
        return written + 1;
    }

    private static (Operation Operation, ulong Sector) ReadHeader(VirtqueueRequest request)
    {
        Span<byte> header = stackalloc byte[HeaderSize];
        request.Read(0, header);
        return ((Operation)BinaryPrimitives.ReadUInt32LittleEndian(header), BinaryPrimitives.ReadUInt64LittleEndian(header[8..]));
    }

    private static (ulong Sector, uint Sectors, uint Flags) ReadRange(VirtqueueRequest request, long offset)
    {
        Span<byte> range = stackalloc byte[RangeSize];
        request.Read(offset, range);
        return (
            BinaryPrimitives.ReadUInt64LittleEndian(range),
            BinaryPrimitives.ReadUInt32LittleEndian(range[8..]),
            BinaryPrimitives.ReadUInt32LittleEndian(range[12..]));
    }

    private bool IsOnDisk(ulong sector, long bytes) => bytes <= MaxRequestBytes && IsInRange(sector, bytes);

    private bool IsInRange(ulong sector, long bytes) =>
        bytes % _blockSize == 0 && sector <= (ulong)(_size / SectorSize) && bytes <= _size - (long)sector * SectorSize
        && (long)sector * SectorSize % _blockSize == 0;

    private async ValueTask ReadPiecesAsync(VirtqueueRequest request, ulong sector, int length)
    {
        byte[] buffer = ArrayPool<byte>.Shared.Rent(length);
        try
        {
            await _disk.ReadAsync((long)sector * SectorSize, buffer.AsMemory(0, length)).ConfigureAwait(false);
            request.Write(0, buffer.AsSpan(0, length));
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(buffer);
        }
    }

    private async ValueTask WriteAsync(VirtqueueRequest request, ulong sector, int length)
    {
        if (request.TryMapReadable(HeaderSize, length, out ReadOnlyMemory<byte> bytes))
        {
            await _disk.WriteAsync((long)sector * SectorSize, bytes).ConfigureAwait(false);
            return;
        }

        byte[] buffer = ArrayPool<byte>.Shared.Rent(length);
        try
        {
            request.Read(HeaderSize, buffer.AsSpan(0, length));
            await _disk.WriteAsync((long)sector * SectorSize, buffer.AsMemory(0, length)).ConfigureAwait(false);
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(buffer);
        }
    }

    private async ValueTask<Status> ZeroAsync(VirtqueueRequest request, long given, Operation operation)
    {
        const uint Unmap = 1;
        if (given == 0 || given % RangeSize != 0 || given / RangeSize > MaxRanges)
        {
            return Status.InputOutputError;
        }

        // All ranges are read and checked before the first is done.
        (ulong Sector, uint Sectors, uint Flags)[] ranges = new (ulong, uint, uint)[given / RangeSize];
        for (int i = 0; i < ranges.Length; i++)
        {
            ranges[i] = ReadRange(request, HeaderSize + i * RangeSize);
            if ((ranges[i].Flags & ~Unmap) != 0 || (operation == Operation.Discard && ranges[i].Flags != 0))
            {
                return Status.Unsupported;
            }

            if (ranges[i].Sectors > MaxRangeSectors || !IsInRange(ranges[i].Sector, ranges[i].Sectors * (long)SectorSize))
            {
                return Status.InputOutputError;
            }
        }

        foreach ((ulong sector, uint sectors, _) in ranges)
        {
            long offset = (long)sector * SectorSize;
            long length = sectors * (long)SectorSize;
            if (operation == Operation.Discard)
            {
                await _disk.DiscardAsync(offset, length).ConfigureAwait(false);
            }
            else
            {
                await _disk.WriteZeroesAsync(offset, length).ConfigureAwait(false);
            }
        }

        await MakeStableAsync().ConfigureAwait(false);
        return Status.Ok;
    }
}
