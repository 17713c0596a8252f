using System.Buffers.Binary;
using System.Text;
using System.Text.Json;
using Microsoft.Win32.SafeHandles;
using Unikraft.Platform.Kvm.Interop;

namespace Unikraft.Platform.Kvm.Tests.Testing;

/// <summary>Reads what is on a volume from its files, with none of the code that has written them: a second opinion.</summary>
internal static class VolumeReader
{
    private const int ChunkSize = 1 << 20;
    private const ulong OffsetMask = 0x00FF_FFFF_FFFF_FE00;
    private const ulong Compressed = 1UL << 62;
    private const ulong Zero = 1;

    /// <summary>Has the host check the file system on a volume that no instance has open.</summary>
    internal static async Task AssertCleanAsync(string directory, Guid volume)
    {
        string raw = Path.Combine(directory, $"{volume:D}.content");
        using (FileStream content = new(raw, FileMode.CreateNew))
        {
            CopyImage(directory, TopOf(directory, volume), content);
        }

        ProcessResult result = await ProcessResult.RunAsync(RequiresLinuxKernelAttribute.FileSystemChecker, ["-f", "-n", raw]).Guarded();
        File.Delete(raw);
        Assert.True(result.ExitCode == 0, result.Output);

        // What it would have recovered from the journal, had it been allowed to, it only warns of.
        Assert.DoesNotContain("warning", result.Output, StringComparison.OrdinalIgnoreCase);
    }

    /// <summary>The name of the image that takes the writes: the last one that the journal of the directory has.</summary>
    private static string TopOf(string directory, Guid volume)
    {
        string? top = null;
        using StreamReader journal = new(Open(directory, "volumes.journal"));
        while (journal.ReadLine() is { } line)
        {
            int json = line.IndexOf('{', StringComparison.Ordinal);
            if (json < 0 || !line.EndsWith('}'))
            {
                continue;
            }

            using JsonDocument change = JsonDocument.Parse(line.AsMemory(json));
            if (change.RootElement.TryGetProperty("Set", out JsonElement records))
            {
                foreach (JsonElement record in records.EnumerateArray().Where(record => record.GetProperty("Uuid").GetGuid() == volume))
                {
                    top = record.GetProperty("Top").GetString();
                }
            }
        }

        return top ?? throw new InvalidOperationException($"The journal of {directory} does not know the volume {volume:D}.");
    }

    /// <summary>Opens a file that others may have locked: what is on a volume that is in use shares images with one that is not.</summary>
    private static FileStream Open(string directory, string name)
    {
        string path = Path.Combine(directory, name);
        int descriptor = HostError.Check(Libc.Open(path, Libc.OpenReadOnly | Libc.OpenCloseOnExec), $"Opening {path}");
        return new FileStream(new SafeFileHandle(descriptor, ownsHandle: true), FileAccess.Read);
    }

    private static void CopyImage(string directory, string name, FileStream content)
    {
        using FileStream image = Open(directory, name);
        if (name.EndsWith(".qcow2", StringComparison.Ordinal))
        {
            CopyQcow2(directory, image, content);
        }
        else
        {
            CopyRaw(image, content);
        }
    }

    private static void CopyRaw(FileStream image, FileStream content)
    {
        byte[] chunk = new byte[ChunkSize];
        for (long at = 0; at < image.Length; at += chunk.Length)
        {
            int length = image.ReadAtLeast(chunk, chunk.Length, throwOnEndOfStream: false);
            if (chunk.AsSpan(0, length).ContainsAnyExcept((byte)0))
            {
                content.Position = at;
                content.Write(chunk, 0, length);
            }
        }

        content.SetLength(image.Length);
    }

    /// <summary>What an image has itself, over what its backing file has.</summary>
    private static void CopyQcow2(string directory, FileStream image, FileStream content)
    {
        byte[] header = Read(image, 0, 104);
        Assert.Equal("QFI\u00FB", Encoding.Latin1.GetString(header, 0, 4));

        // Nothing that is not known here, but for refcounts that may be wrong: a reader needs none.
        Assert.Equal((3u, 0UL), (BinaryPrimitives.ReadUInt32BigEndian(header.AsSpan(4)), BinaryPrimitives.ReadUInt64BigEndian(header.AsSpan(72)) & ~1UL));
        long nameOffset = BinaryPrimitives.ReadInt64BigEndian(header.AsSpan(8));
        if (nameOffset != 0)
        {
            CopyImage(directory, Encoding.UTF8.GetString(Read(image, nameOffset, BinaryPrimitives.ReadInt32BigEndian(header.AsSpan(16)))), content);
        }

        int clusterSize = 1 << BinaryPrimitives.ReadInt32BigEndian(header.AsSpan(20));
        long size = BinaryPrimitives.ReadInt64BigEndian(header.AsSpan(24));
        content.SetLength(size);
        long at = 0;
        foreach (ulong table in Table(image, BinaryPrimitives.ReadInt64BigEndian(header.AsSpan(40)), BinaryPrimitives.ReadInt32BigEndian(header.AsSpan(36))))
        {
            int entries = clusterSize / sizeof(ulong);
            ulong[] clusters = (table & OffsetMask) == 0 ? new ulong[entries] : Table(image, (long)(table & OffsetMask), entries);
            foreach (ulong cluster in clusters)
            {
                Assert.Equal(0UL, cluster & Compressed);
                if ((cluster & (OffsetMask | Zero)) != 0)
                {
                    int length = (int)Math.Min(clusterSize, size - at);
                    content.Position = at;
                    content.Write((cluster & Zero) != 0 ? new byte[length] : Read(image, (long)(cluster & OffsetMask), length));
                }

                at += clusterSize;
            }
        }
    }

    private static ulong[] Table(FileStream image, long offset, int entries)
    {
        byte[] bytes = Read(image, offset, entries * sizeof(ulong));
        return [.. Enumerable.Range(0, entries).Select(i => BinaryPrimitives.ReadUInt64BigEndian(bytes.AsSpan(i * sizeof(ulong))))];
    }

    private static byte[] Read(FileStream image, long offset, int length)
    {
        byte[] bytes = new byte[length];
        image.Position = offset;

        // Clusters at the end of a file need not be whole.
        _ = image.ReadAtLeast(bytes, length, throwOnEndOfStream: false);
        return bytes;
    }
}
