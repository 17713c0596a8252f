using System.Globalization;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using Unikraft.Platform.Storage;

namespace Unikraft.Platform.Volumes;

/// <summary>
/// What is known of the volumes, on the disk: a file of lines, each a checksum and a change, that grows until it is written anew without what is over. A line that
/// was cut short by a crash is the last one, and as good as not written. The file is filled up with zeroes to whole blocks, so that one that lost its end is told from
/// one that ends there.
/// </summary>
/// <remarks>Not safe for concurrent use.</remarks>
internal sealed class VolumeJournal : IDisposable
{
    internal const string FileName = "volumes.journal";

    private const string AnyHeader = "unikraft volumes ";
    private const int Version = 4;
    private const string CopyMark = " copy";

    /// <summary>The last version that was not filled up to whole blocks.</summary>
    private const int VersionWithoutBlocks = 1;

    /// <summary>The last version whose end was not always a zero.</summary>
    private const int VersionWithoutZero = 2;
    private const string CopyName = FileName + ".copy";
    private const string DamagedSuffix = ".damaged";
    private const int ChecksumLength = 16;
    private const int BlockSize = 4096;

    /// <summary>How much longer than necessary it becomes.</summary>
    private const int Growth = 64 << 10;

    /// <summary>So much of it is for volumes that are gone: a full disk keeps nobody from deleting.</summary>
    private const int ReserveForRemovals = 2 * BlockSize;

    private readonly DataFiles _files;
    private readonly VolumeJournalOptions _options;
    private readonly Dictionary<Guid, VolumeRecord> _records;
    private ImageHistory _images;
    private IFile _file;
    private long _length;
    private long _allocated;
    private long _lengthAtFirst;

    /// <summary>Nobody can tell what the file on the disk is, or holds: only a new one can be written to.</summary>
    private bool _mustRewrite;

    private VolumeJournal(
        DataFiles files,
        VolumeJournalOptions options,
        IFile file,
        long length,
        long allocated,
        IReadOnlyDictionary<Guid, VolumeRecord> records,
        ImageHistory images)
    {
        (_files, _options, _file, _records, _images) = (files, options, file, new Dictionary<Guid, VolumeRecord>(records), images);
        (_length, _allocated, _lengthAtFirst) = (length, allocated, length);
    }

    /// <summary>Takes the names of files to the disk.</summary>
    internal Action? SyncNames { get; set; }

    /// <summary>Why the journal that was found may not have known all; <see langword="null"/> when it did.</summary>
    internal static string? FindDamage(DataFiles files) =>
        files.List("").Where(static name => name.StartsWith(FileName + DamagedSuffix, StringComparison.Ordinal)).Max(StringComparer.Ordinal) is { } aside ? files.PathOf(aside) : null;

    public void Dispose() => _file.Dispose();

    /// <summary>Reads the journal of a directory, and writes it anew without what is over. A new one is empty.</summary>
    /// <param name="files">The directory.</param>
    /// <param name="isKept">Whether a volume is still wanted.</param>
    /// <param name="records">The volumes that are.</param>
    /// <param name="options">How it is kept; as usual when <see langword="null"/>.</param>
    /// <exception cref="StorageException">It is of another version, or the host refused.</exception>
    /// <exception cref="DataDamageException">The disk cannot read it.</exception>
    /// <remarks>
    /// A damaged journal is put aside, and what of it is whole is used. What a journal begins with is there twice.
    /// </remarks>
    internal static VolumeJournal Open(DataFiles files, Func<VolumeRecord, bool> isKept, out Dictionary<Guid, VolumeRecord> records, VolumeJournalOptions? options = null)
    {
        options ??= new VolumeJournalOptions();
        JournalContents contents = Read(files);
        records = contents.Records.Where(entry => isKept(entry.Value)).ToDictionary();
        ImageHistory images = new();
        byte[] lines = Format(records.Values, images);
        IFile? file = null;
        try
        {
            Write(files, CopyName, lines).File.Dispose();
            files.Rename(TemporaryOf(CopyName), CopyName);
            (file, long length, long allocated) = Write(files, FileName, lines);
            files.Rename(TemporaryOf(FileName), FileName);
            return new VolumeJournal(files, options, file, length, allocated, records, images);
        }
        catch (StorageException error)
        {
            file?.Dispose();
            files.DeleteIfPossible(TemporaryOf(CopyName));
            files.DeleteIfPossible(TemporaryOf(FileName));
            if (error.IsFull && contents is { IsDamaged: false, CanGrow: true })
            {
                // Whoever wants to make room must be able to delete.
                return GoOn(files, options, contents, records);
            }

            throw;
        }
    }

    /// <summary>Writes a change down, durably.</summary>
    /// <exception cref="StorageException">The host cannot. Nothing was written, as far as anybody will find.</exception>
    internal void Append(VolumeChange change)
    {
        if (_mustRewrite || _length > _options.MinRewriteLength + (2 * _lengthAtFirst))
        {
            Rewrite();
        }

        byte[] line = Format(_images.Shorten(change));

        // Behind the last line there is a zero: without one, the end is missing.
        long room = change.Set.Count > 0 ? ReserveForRemovals : 1;
        try
        {
            if (_length + line.Length + room > _allocated)
            {
                Extend(_length + line.Length + room);
            }

            _files.Write(FileName, _file, _length, line);
            _files.Sync(FileName, _file);
        }
        catch (StorageException)
        {
            _images.TakeBack();
            TakeBack(line.Length);
            throw;
        }

        _length += line.Length;
        foreach (VolumeRecord record in change.Set)
        {
            _records[record.Uuid] = record;
        }

        foreach (Guid removed in change.Removed)
        {
            _records.Remove(removed);
        }
    }

    /// <summary>Goes on with the journal that was found, which is sound, behind its last line.</summary>
    private static VolumeJournal GoOn(DataFiles files, VolumeJournalOptions options, JournalContents contents, Dictionary<Guid, VolumeRecord> records)
    {
        IFile file = files.TryOpen(FileName) ?? throw new StorageException(files.PathOf(FileName), $"'{files.PathOf(FileName)}' is gone, which was there.");
        try
        {
            // What a crash has left of a line.
            files.Write(FileName, file, contents.Length, new byte[file.Length - contents.Length]);
            files.Sync(FileName, file);
            return new VolumeJournal(files, options, file, contents.Length, file.Length, records, contents.Images);
        }
        catch
        {
            file.Dispose();
            throw;
        }
    }

    // Whole blocks, and some for what comes next: whoever finds another length knows that something is missing. That is durable first: of a file that is written to
    // while it grows, a power cut may leave an end in the middle of a block. Then zeroes are written, so that the disk has room for what comes.
    private void Extend(long length)
    {
        long allocated = WholeBlocks(length + Growth);
        try
        {
            _files.SetLength(FileName, _file, allocated);
            _files.Sync(FileName, _file);
            _files.Write(FileName, _file, _allocated, new byte[allocated - _allocated]);
            _allocated = allocated;
        }
        catch (StorageException)
        {
            _files.SetLength(FileName, _file, _allocated);
            throw;
        }
    }

    /// <summary>Takes back what there is of a line.</summary>
    private void TakeBack(int length)
    {
        try
        {
            _files.SetLength(FileName, _file, _allocated);
            _files.Write(FileName, _file, _length, new byte[Math.Min(length, _allocated - _length)]);
            _files.Sync(FileName, _file);
        }
        catch (StorageException)
        {
            _mustRewrite = true;
        }
    }

    /// <summary>Writes it anew, without what is over, the copy first: it knows what the journal knows, whichever of them is the new one.</summary>
    private void Rewrite()
    {
        ImageHistory images = new();
        byte[] lines = Format(_records.Values, images);
        IFile? file = null;
        try
        {
            Write(_files, CopyName, lines).File.Dispose();
            _files.Rename(TemporaryOf(CopyName), CopyName);
            SyncNames?.Invoke();
            (file, long length, long allocated) = Write(_files, FileName, lines);

            // The name may be that of either file from here on.
            _mustRewrite = true;
            _files.Rename(TemporaryOf(FileName), FileName);
            SyncNames?.Invoke();
            _file.Dispose();
            (_file, _length, _allocated, _lengthAtFirst, _images, _mustRewrite) = (file, length, allocated, length, images, false);
        }
        catch (StorageException)
        {
            file?.Dispose();
            _files.DeleteIfPossible(TemporaryOf(CopyName));
            _files.DeleteIfPossible(TemporaryOf(FileName));
            if (_mustRewrite)
            {
                throw;
            }

            // There is no room for another one, perhaps: this one goes on.
        }
    }

    private static long WholeBlocks(long length) => (length + BlockSize - 1) / BlockSize * BlockSize;

    private static JournalContents Read(DataFiles files)
    {
        JournalContents? copy = null;
        if (ReadContents(files, FileName, isCopy: false) is not { } contents)
        {
            copy = ReadContents(files, CopyName, isCopy: true);
            if (copy is not { IsDamaged: true } and not { Records.Count: > 0 } && !files.List("").Any(ImageDirectory.IsImage))
            {
                return new JournalContents();
            }

            // There was one, for there is what it was about.
            contents = JournalContents.Read([], TryParse, damagedHeader: null, headerLength: 0, isWhole: false, canGrow: false);
        }

        if (!contents.IsDamaged)
        {
            return contents;
        }

        contents.Complete(copy ?? ReadContents(files, CopyName, isCopy: true));
        if (contents.IsDoubtful)
        {
            string aside = PutAside(files);
            contents.MarkDoubtful(files, $"'{files.PathOf(FileName)}' was damaged, and may have known something newer. What was found is '{aside}'");
        }

        return contents;
    }

    private static JournalContents? ReadContents(DataFiles files, string name, bool isCopy)
    {
        byte[]? bytes;
        try
        {
            bytes = files.TryRead(name);
        }
        catch (StorageException error) when (DataFiles.IsUnreadable(error))
        {
            // Nothing is made of what may be readable at the next attempt, or after a repair of the disk.
            throw new DataDamageException(
                files.PathOf(name),
                [],
                $"The journal of volumes '{files.PathOf(name)}' cannot be read: {error.Message} Put a sound copy of it there; or move it away: then what a copy knows from the last start is used.",
                error);
        }

        if (bytes is null)
        {
            return null;
        }

        // Lines are ASCII, and a byte a character keeps the place of what is damaged.
        string[] lines = Encoding.Latin1.GetString(bytes).TrimEnd('\0').Split('\n');
        (int version, bool isCopyFound) = ParseHeader(lines[0]);
        if (version > Version && isCopyFound == isCopy)
        {
            string path = files.PathOf(name);
            throw new StorageException(path, $"'{path}' is no journal of volumes that this version of the platform can read: it is of version {version}. Use a newer one.");
        }

        // A copy in the place of the journal knows only what that began with.
        bool isSound = version is >= VersionWithoutBlocks and <= Version && isCopyFound == isCopy;
        bool hasEnd = version is VersionWithoutBlocks
            || (bytes.Length > 0 && bytes.Length % BlockSize == 0 && (version is VersionWithoutZero || bytes[^1] == 0));
        return JournalContents.Read(
            lines.AsSpan(1),
            TryParse,
            isSound ? null : lines[0],
            headerLength: lines[0].Length + 1,
            isWhole: hasEnd && (isSound || version == 0),
            canGrow: version == Version);
    }

    /// <returns>A version of 0 when it is none.</returns>
    private static (int Version, bool IsCopy) ParseHeader(string line)
    {
        bool isCopy = line.EndsWith(CopyMark, StringComparison.Ordinal);
        ReadOnlySpan<char> number = line.AsSpan(0, line.Length - (isCopy ? CopyMark.Length : 0));
        return number.StartsWith(AnyHeader, StringComparison.Ordinal) && int.TryParse(number[AnyHeader.Length..], NumberStyles.None, CultureInfo.InvariantCulture, out int version)
            ? (version, isCopy)
            : (0, false);
    }

    private static string TemporaryOf(string name) => name + DataFiles.TemporarySuffix;

    /// <summary>Writes a journal under a temporary name.</summary>
    private static (IFile File, long Length, long Allocated) Write(DataFiles files, string name, byte[] lines)
    {
        string temporary = TemporaryOf(name);
        string copyMark = string.Equals(name, CopyName, StringComparison.Ordinal) ? CopyMark : "";
        byte[] contents = [.. Encoding.ASCII.GetBytes(string.Create(CultureInfo.InvariantCulture, $"{AnyHeader}{Version}{copyMark}\n")), .. lines];
        byte[] blocks = new byte[WholeBlocks(contents.Length + ReserveForRemovals)];
        contents.CopyTo(blocks, 0);
        IFile file = files.Create(temporary);
        try
        {
            files.Write(temporary, file, 0, blocks);
            files.Sync(temporary, file);
            return (file, contents.Length, blocks.Length);
        }
        catch
        {
            file.Dispose();
            throw;
        }
    }

    private static string PutAside(DataFiles files)
    {
        for (int number = 1; ; number++)
        {
            string aside = string.Create(CultureInfo.InvariantCulture, $"{FileName}{DamagedSuffix}{number}");
            if (files.Stat(aside) is null)
            {
                files.Publish(aside, files.TryRead(FileName) ?? []);
                return files.PathOf(aside);
            }
        }
    }

    private static VolumeChange? TryParse(string line)
    {
        if (line.Length <= ChecksumLength
            || !line.StartsWith(ChecksumOf(Encoding.UTF8.GetBytes(line[ChecksumLength..])), StringComparison.Ordinal))
        {
            return null;
        }

        try
        {
            VolumeChange? change = JsonSerializer.Deserialize(line.AsSpan(ChecksumLength), VolumeJson.Default.VolumeChange);
            return change is { Set: not null, Removed: not null } && change.Set.All(IsUsable) ? change : null;
        }
        catch (JsonException)
        {
            // Nobody of ours has written that, whatever its checksum says.
            return null;
        }
    }

    // What is left out of a line because it is nothing cannot be required of it.
    private static bool IsUsable(VolumeRecord? record) =>
        record is not null && record.Uuid != Guid.Empty && record.CreatedAt != default && record.Images.All(static image => image is not null);

    // A line each, so that damage is of one volume only; and one that says that these are all.
    private static byte[] Format(IEnumerable<VolumeRecord> records, ImageHistory images)
    {
        using MemoryStream lines = new();
        foreach (VolumeRecord record in records)
        {
            lines.Write(Format(images.Shorten(new VolumeChange { Set = [record] })));
        }

        lines.Write(Format(new VolumeChange()));
        return lines.ToArray();
    }

    private static byte[] Format(VolumeChange change)
    {
        byte[] json = JsonSerializer.SerializeToUtf8Bytes(change, VolumeJson.Default.VolumeChange);
        return [.. Encoding.ASCII.GetBytes(ChecksumOf(json)), .. json, (byte)'\n'];
    }

    private static string ChecksumOf(ReadOnlySpan<byte> json) => Convert.ToHexStringLower(SHA256.HashData(json).AsSpan(0, ChecksumLength / 2));
}
