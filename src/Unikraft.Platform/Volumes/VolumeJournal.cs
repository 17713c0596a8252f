using System.Globalization;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json;

namespace Unikraft.Platform.Volumes;

/// <summary>
/// What is known of the volumes, on the disk: a file of lines, each a checksum and a change, that only grows while it is open. A line that was cut short by a
/// crash is the last one, and as good as not written.
/// </summary>
/// <remarks>Not safe for concurrent use.</remarks>
internal sealed class VolumeJournal : IDisposable
{
    internal const string FileName = "volumes.journal";

    private const string AnyHeader = "unikraft volumes ";
    private const string Header = AnyHeader + "1";
    private const string TemporarySuffix = ".tmp";
    private const string CopySuffix = ".copy";
    private const string DamagedSuffix = ".damaged";
    private const int ChecksumLength = 16;

    private readonly FileStream _file;
    private long _length;
    private StorageException? _broken;

    private VolumeJournal(FileStream file)
    {
        _file = file;
        _length = file.Length;
    }

    public void Dispose() => _file.Dispose();

    /// <summary>Reads the journal of a directory, and writes it anew without what is over. A new one is empty.</summary>
    /// <param name="directory">The directory.</param>
    /// <param name="isKept">Whether a volume is still wanted.</param>
    /// <param name="records">The volumes that are.</param>
    /// <exception cref="StorageException">It is of another version, or the host refused.</exception>
    /// <remarks>
    /// A damaged journal is put aside, and what of it is whole is used. What a journal begins with is there twice.
    /// </remarks>
    internal static VolumeJournal Open(string directory, Func<VolumeRecord, bool> isKept, out Dictionary<Guid, VolumeRecord> records)
    {
        string path = Path.Combine(directory, FileName);
        try
        {
            records = (File.Exists(path) ? Read(directory, path) : new Dictionary<Guid, VolumeRecord>()).Where(entry => isKept(entry.Value)).ToDictionary();

            // A line each, so that damage is of one volume only; and one that says that these are all.
            byte[] contents =
            [
                .. Encoding.UTF8.GetBytes(Header + "\n"),
                .. records.Values.SelectMany(static record => Format(new VolumeChange { Set = [record] })),
                .. Format(new VolumeChange()),
            ];
            Write(path + CopySuffix, contents).Dispose();
            return new VolumeJournal(Write(path, contents));
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            throw Failure(path, error);
        }
    }

    /// <summary>Whether something of a journal is put aside because it is damaged: it may have known images that nobody else does.</summary>
    internal static bool HasDamage(string directory) => Directory.EnumerateFiles(directory, FileName + DamagedSuffix + "*").Any();

    /// <summary>Writes a change down, durably.</summary>
    /// <exception cref="StorageException">The host cannot. Nothing was written, as far as anybody will find.</exception>
    internal void Append(VolumeChange change)
    {
        if (_broken is { } broken)
        {
            throw broken;
        }

        try
        {
            _file.Write(Format(change));
            _file.Flush(flushToDisk: true);
            _length = _file.Length;
        }
        catch (IOException error)
        {
            StorageException failure = Failure(_file.Name, error);
            try
            {
                _file.SetLength(_length);
                _file.Position = _length;
                _file.Flush(flushToDisk: true);
            }
            catch (IOException)
            {
                // Nobody can tell any more what is on the disk.
                _broken = failure;
            }

            throw failure;
        }
    }

    private static IReadOnlyDictionary<Guid, VolumeRecord> Read(string directory, string path)
    {
        JournalContents contents = ReadContents(path);
        if (!contents.IsDamaged)
        {
            return contents.Records;
        }

        contents.Complete(File.Exists(path + CopySuffix) ? ReadContents(path + CopySuffix) : null);
        if (contents.IsDoubtful)
        {
            string aside = PutAside(path);
            contents.MarkDoubtful(directory, $"'{path}' was damaged, and may have known something newer. What was found is '{aside}'");
        }

        return contents.Records;
    }

    private static JournalContents ReadContents(string path)
    {
        string[] lines = File.ReadAllText(path).Split('\n');
        bool isSound = string.Equals(lines[0], Header, StringComparison.Ordinal);
        if (!isSound && lines[0].StartsWith(AnyHeader, StringComparison.Ordinal) && int.TryParse(lines[0].AsSpan(AnyHeader.Length), CultureInfo.InvariantCulture, out _))
        {
            throw new StorageException(path, $"'{path}' is no journal of volumes that this version of the platform can read.");
        }

        return JournalContents.Read(lines.AsSpan(1), TryParse, isSound ? null : lines[0]);
    }

    private static FileStream Write(string path, byte[] contents)
    {
        string temporary = path + TemporarySuffix;
        FileStream file = new(temporary, FileMode.Create, FileAccess.ReadWrite, FileShare.Read);
        try
        {
            file.Write(contents);
            file.Flush(flushToDisk: true);
            File.Move(temporary, path, overwrite: true);
            return file;
        }
        catch
        {
            file.Dispose();
            throw;
        }
    }

    private static string PutAside(string path)
    {
        for (int number = 1; ; number++)
        {
            string aside = string.Create(CultureInfo.InvariantCulture, $"{path}{DamagedSuffix}{number}");
            if (!File.Exists(aside))
            {
                File.Copy(path, aside);
                return aside;
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

        return JsonSerializer.Deserialize(line.AsSpan(ChecksumLength), VolumeJson.Default.VolumeChange);
    }

    private static byte[] Format(VolumeChange change)
    {
        byte[] json = JsonSerializer.SerializeToUtf8Bytes(change, VolumeJson.Default.VolumeChange);
        return [.. Encoding.ASCII.GetBytes(ChecksumOf(json)), .. json, (byte)'\n'];
    }

    private static string ChecksumOf(ReadOnlySpan<byte> json) => Convert.ToHexStringLower(SHA256.HashData(json).AsSpan(0, ChecksumLength / 2));

    private static StorageException Failure(string path, Exception error) => new(
        path,
        $"The host cannot write '{path}': {error.Message} Free some space, or make the directory writable, and try again.",
        ImageFile.IsFull(error));
}
