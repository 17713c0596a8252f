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

    private const string Header = "unikraft volumes 1";
    private const string TemporarySuffix = ".tmp";
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
    /// <exception cref="StorageException">It is damaged, of another version, or the host refused.</exception>
    internal static VolumeJournal Open(string directory, Func<VolumeRecord, bool> isKept, out Dictionary<Guid, VolumeRecord> records)
    {
        string path = Path.Combine(directory, FileName);
        try
        {
            records = (File.Exists(path) ? Read(path) : []).Where(entry => isKept(entry.Value)).ToDictionary();
            string temporary = path + TemporarySuffix;
            FileStream file = new(temporary, FileMode.Create, FileAccess.ReadWrite, FileShare.Read);
            try
            {
                file.Write(Encoding.UTF8.GetBytes(Header + "\n"));
                if (records.Count > 0)
                {
                    file.Write(Format(new VolumeChange { Set = [.. records.Values] }));
                }

                file.Flush(flushToDisk: true);
                File.Move(temporary, path, overwrite: true);
                return new VolumeJournal(file);
            }
            catch
            {
                file.Dispose();
                throw;
            }
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            throw Failure(path, error);
        }
    }

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

    private static Dictionary<Guid, VolumeRecord> Read(string path)
    {
        Dictionary<Guid, VolumeRecord> records = [];
        string[] lines = File.ReadAllText(path).Split('\n');
        if (!string.Equals(lines[0], Header, StringComparison.Ordinal))
        {
            throw new StorageException(path, $"'{path}' is no journal of volumes that this version of the platform can read.");
        }

        for (int i = 1; i < lines.Length; i++)
        {
            if (TryParse(lines[i]) is not { } change)
            {
                // Behind the last end of line there is nothing, or what a crash has left of a line.
                return i == lines.Length - 1
                    ? records
                    : throw new StorageException(path, $"'{path}' is damaged in line {i + 1}. Restore it from a backup: images are not removed meanwhile.");
            }

            foreach (VolumeRecord record in change.Set)
            {
                records[record.Uuid] = record;
            }

            foreach (Guid removed in change.Removed)
            {
                records.Remove(removed);
            }
        }

        return records;
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
