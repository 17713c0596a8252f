using System.Buffers.Binary;
using System.Collections.Concurrent;
using Unikraft.Platform.Instances;

namespace Unikraft.Platform.Storage;

/// <summary>The console output of instances in files: frames with a checksum, which are written behind the guests' backs and synced with the metadata.</summary>
internal sealed class KeptLogs(DataFiles files, int capacity)
{
    internal const string Folder = "logs";

    private const string Suffix = ".log";
    private const uint Magic = 0x474C4B55;
    private const int HeaderSize = 32;
    private const int Covered = 16;
    private const int MaxFrame = 1 << 20;

    // So that a small log is not written anew with every few lines.
    private const int Slack = 64 << 10;

    private readonly ConcurrentDictionary<Guid, Kept> _logs = [];

    internal static string NameOf(Guid instance) => Path.Combine(Folder, $"{instance:D}{Suffix}");

    internal void Attach(IKeptResource? owner, Guid instance, InstanceLog log) => _logs[instance] = new Kept(owner, NameOf(instance), log);

    /// <summary>Forgets a log, and removes its file.</summary>
    internal void Remove(Guid instance)
    {
        _logs.TryRemove(instance, out _);
        files.DeleteIfPossible(NameOf(instance));
    }

    internal void Detach(Guid instance) => _logs.TryRemove(instance, out _);

    /// <summary>Writes what was logged since. One caller at a time.</summary>
    /// <exception cref="StorageException">The disk is full, or the host refused.</exception>
    internal void Flush()
    {
        foreach (Kept kept in _logs.Values)
        {
            if (kept.Log.End > kept.Written)
            {
                Flush(kept);
            }
        }
    }

    /// <summary>Up to which offset the output of an instance is in its file for good, which is about to be recorded.</summary>
    internal long RecordEnd(Guid instance) => _logs.TryGetValue(instance, out Kept? kept) ? kept.Recorded = kept.Written : 0;

    /// <summary>The instances whose files hold more than is recorded.</summary>
    internal IReadOnlyList<IKeptResource> Unrecorded() =>
        [.. _logs.Values.Where(static kept => kept.Written > kept.Recorded).Select(static kept => kept.Owner).OfType<IKeptResource>()];

    /// <summary>Reads the log of an instance back.</summary>
    /// <param name="instance">The instance.</param>
    /// <param name="log">Where to.</param>
    /// <param name="end">The offset up to which it had been written.</param>
    /// <returns>What is wrong with its file; <see langword="null"/> for nothing.</returns>
    internal string? Restore(Guid instance, InstanceLog log, long end)
    {
        Kept kept = _logs.GetOrAdd(instance, id => new Kept(owner: null, NameOf(id), log));
        byte[]? content;
        try
        {
            content = files.TryRead(kept.Name);
        }
        catch (StorageException error) when (DataFiles.IsUnreadable(error))
        {
            // What is logged from now on goes into a new file.
            kept.Length = long.MaxValue;
            return $"cannot be read: {error.Message}";
        }

        if (content is null)
        {
            return end > 0 ? "is missing" : null;
        }

        List<(long Offset, ReadOnlyMemory<byte> Data)> frames = [];
        (long length, string? damage) = Read(content, frames);
        foreach ((long offset, ReadOnlyMemory<byte> data) in frames)
        {
            log.Restore(offset, data.Span);
        }

        kept.Written = kept.Recorded = log.End;
        // A file that does not end with a frame is written anew.
        kept.Length = damage is null && length == content.Length ? length : long.MaxValue;
        return damage ?? (log.End < end ? "has lost its end" : null);
    }

    /// <summary>Says what is wrong with the file of a log.</summary>
    internal string? Verify(Guid instance, long end)
    {
        byte[]? content;
        try
        {
            content = files.TryRead(NameOf(instance));
        }
        catch (StorageException error)
        {
            return $"cannot be read: {error.Message}";
        }

        if (content is null)
        {
            return end > 0 ? "is missing" : null;
        }

        List<(long Offset, ReadOnlyMemory<byte> Data)> frames = [];
        (_, string? damage) = Read(content, frames);
        long found = frames.Count == 0 ? 0 : frames[^1].Offset + frames[^1].Data.Length;
        return damage ?? (found < end ? "has lost its end" : null);
    }

    /// <summary>The instances that there are files of.</summary>
    internal IEnumerable<(string Name, Guid Instance)> List()
    {
        foreach (string name in files.List(Folder))
        {
            if (name.EndsWith(Suffix, StringComparison.Ordinal) && Guid.TryParseExact(name.AsSpan(0, name.Length - Suffix.Length), "D", out Guid instance))
            {
                yield return (Path.Combine(Folder, name), instance);
            }
        }
    }

    /// <summary>Reads the frames of a file. A last one that is incomplete was being written.</summary>
    internal static (long Length, string? Damage) Read(ReadOnlyMemory<byte> content, List<(long Offset, ReadOnlyMemory<byte> Data)> frames)
    {
        long position = 0;
        long end = -1;
        while (content.Length - position >= HeaderSize)
        {
            ReadOnlyMemory<byte> rest = content[(int)position..];
            uint magic = BinaryPrimitives.ReadUInt32LittleEndian(rest.Span);
            int length = BinaryPrimitives.ReadInt32LittleEndian(rest.Span[4..]);
            long offset = BinaryPrimitives.ReadInt64LittleEndian(rest.Span[8..]);
            if (magic != Magic || length is <= 0 or > MaxFrame || offset < Math.Max(0, end))
            {
                return (position, $"is damaged at byte {position}");
            }

            if (length > rest.Length - HeaderSize)
            {
                break;
            }

            ReadOnlyMemory<byte> data = rest.Slice(HeaderSize, length);
            if (!Checksum.Of(rest.Span[..Covered], data.Span).IsShort(rest.Span[Covered..]))
            {
                return (position, $"is damaged at byte {position}");
            }

            frames.Add((offset, data));
            end = offset + length;
            position += HeaderSize + length;
        }

        return (position, null);
    }

    private void Flush(Kept kept)
    {
        try
        {
            if (kept.Length > (2L * capacity) + Slack)
            {
                Rewrite(kept);
            }
            else
            {
                Append(kept);
            }
        }
        catch (StorageException)
        {
            // Nobody knows what of it is in the file, and a second sync would not tell.
            kept.Length = long.MaxValue;
            throw;
        }
    }

    private void Rewrite(Kept kept)
    {
        long offset = 0;
        long length = 0;
        files.Publish(kept.Name, file =>
        {
            Copy(kept, ref offset, (_, frame) => file.Append(frame));
            length = file.Length;
        });
        (kept.Length, kept.Written) = (length, offset);
    }

    private void Append(Kept kept)
    {
        IFile? found = files.TryOpen(kept.Name);
        using IFile opened = found ?? files.Create(kept.Name);
        long written = kept.Written;
        Copy(kept, ref written, (_, frame) =>
        {
            files.Write(kept.Name, opened, kept.Length, frame);
            kept.Length += frame.Length;
        });
        files.Sync(kept.Name, opened);
        if (found is null)
        {
            // Else its end is recorded, and it may be missing after a power cut.
            files.SyncDirectory(files.PathOf(Folder));
        }

        kept.Written = written;
    }

    private static void Copy(Kept kept, ref long offset, Action<long, ReadOnlyMemory<byte>> write)
    {
        // As far as it reaches now: a guest that writes without end is not followed.
        long end = kept.Log.End;
        byte[] frame = new byte[HeaderSize + InstanceLog.ChunkSize];
        while (offset < end)
        {
            int length = kept.Log.Read(ref offset, frame.AsSpan(HeaderSize));
            if (length == 0)
            {
                return;
            }

            BinaryPrimitives.WriteUInt32LittleEndian(frame, Magic);
            BinaryPrimitives.WriteInt32LittleEndian(frame.AsSpan(4), length);
            BinaryPrimitives.WriteInt64LittleEndian(frame.AsSpan(8), offset - length);
            Checksum.Of(frame.AsSpan(0, Covered), frame.AsSpan(HeaderSize, length)).WriteShort(frame.AsSpan(Covered));
            write(offset, frame.AsMemory(0, HeaderSize + length));
        }
    }

    private sealed class Kept(IKeptResource? owner, string name, InstanceLog log)
    {
        internal IKeptResource? Owner { get; } = owner;

        internal long Recorded { get; set; }

        internal string Name { get; } = name;

        internal InstanceLog Log { get; } = log;

        /// <summary>The offset in the log up to which it is in the file.</summary>
        internal long Written { get; set; }

        /// <summary>The bytes of the file that hold frames.</summary>
        internal long Length { get; set; }
    }
}
