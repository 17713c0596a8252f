using System.Globalization;
using System.Text;

namespace Unikraft.Platform.Storage;

/// <summary>The file that says what a data directory is, and which of its metadata files hold.</summary>
/// <param name="Version">The version of the format of the directory.</param>
/// <param name="Generation">The generation of the metadata.</param>
/// <param name="Root">The root checksum of the snapshot of that generation.</param>
internal sealed record Manifest(int Version, long Generation, Checksum Root)
{
    internal const string Name = "manifest";

    /// <summary>The version that this version of the platform writes. From 2 on there may be snapshots in a log of the backend, which it makes files of when it is opened.</summary>
    internal const int CurrentVersion = 3;

    private const string Magic = "unikraft-platform-data ";
    private const string ChecksumLine = "checksum ";
    private const int MaxLength = 4096;

    internal byte[] Encode()
    {
        string text = FormattableString.Invariant($"{Magic}{Version}\ngeneration {Generation}\nroot {Root}\n");
        return Encoding.ASCII.GetBytes($"{text}{ChecksumLine}{Checksum.Of(Encoding.ASCII.GetBytes(text))}\n");
    }

    /// <exception cref="MetadataDamageException">It is not as it was written.</exception>
    /// <exception cref="DataVersionException">It is of a version newer than the newest that is known.</exception>
    internal static Manifest Decode(ReadOnlySpan<byte> content, string directory, int newest = CurrentVersion)
    {
        string text = Encoding.ASCII.GetString(content[..Math.Min(content.Length, MaxLength)]);
        string[] lines = text.Split('\n');
        if (!lines[0].StartsWith(Magic, StringComparison.Ordinal)
            || !int.TryParse(lines[0].AsSpan(Magic.Length), NumberStyles.None, CultureInfo.InvariantCulture, out int version))
        {
            throw new MetadataDamageException("is not the manifest of a data directory");
        }

        // A newer version may have other lines, but not another last one.
        int end = text.LastIndexOf(ChecksumLine, StringComparison.Ordinal);
        if (end < 0
            || content.Length > MaxLength
            || !string.Equals(text[end..], $"{ChecksumLine}{Checksum.Of(content[..end])}\n", StringComparison.Ordinal))
        {
            throw new MetadataDamageException("does not have the checksum that it should have");
        }

        if (version > newest)
        {
            throw new DataVersionException(directory, version, newest);
        }

        const string GenerationLine = "generation ";
        const string RootLine = "root ";
        return version >= 1
            && lines.Length == 5
            && lines[1].StartsWith(GenerationLine, StringComparison.Ordinal)
            && long.TryParse(lines[1].AsSpan(GenerationLine.Length), NumberStyles.None, CultureInfo.InvariantCulture, out long generation)
            && generation >= 1
            && lines[2].StartsWith(RootLine, StringComparison.Ordinal)
            && TryParseRoot(lines[2].AsSpan(RootLine.Length), out byte[] root)
            ? new Manifest(version, generation, Checksum.Read(root))
            : throw new MetadataDamageException("has lines that no manifest has");
    }

    private static bool TryParseRoot(ReadOnlySpan<char> text, out byte[] root)
    {
        root = new byte[Checksum.Size];
        return Convert.FromHexString(text, root, out int read, out int written) == System.Buffers.OperationStatus.Done
            && read == text.Length
            && written == root.Length;
    }
}
