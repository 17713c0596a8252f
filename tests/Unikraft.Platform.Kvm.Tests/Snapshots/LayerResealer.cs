using System.Buffers.Binary;
using System.Security.Cryptography;

namespace Unikraft.Platform.Kvm.Tests.Snapshots;

/// <summary>Makes all checksums of a layer file right again, whatever it says. Knows docs/snapshot-format.md and nothing of the reader.</summary>
internal static class LayerResealer
{
    internal static void Seal(Span<byte> file)
    {
        int stored = (int)BinaryPrimitives.ReadInt64LittleEndian(file[48..]);
        int runs = (int)BinaryPrimitives.ReadInt64LittleEndian(file[56..]);
        Seal(file, stored, runs);
    }

    /// <param name="file">The file.</param>
    /// <param name="stored">The number of pages that it really holds.</param>
    /// <param name="runs">The number of runs that it really has.</param>
    internal static void Seal(Span<byte> file, int stored, int runs)
    {
        int index = 4096 * (1 + stored);
        int checksums = index + 8 * runs;
        int footer = checksums + (stored + 63) / 64 * 32;
        for (int chunk = 0; chunk * 64 < stored; chunk++)
        {
            Span<byte> pages = file[(4096 * (1 + chunk * 64))..Math.Min(index, 4096 * (1 + chunk * 64 + 64))];
            SHA256.HashData(pages, file[(checksums + chunk * 32)..]);
        }

        SHA256.HashData(file[..4096], file[(footer + 16)..]);
        SHA256.HashData(file[index..checksums], file[(footer + 48)..]);
        SHA256.HashData(file[checksums..footer], file[(footer + 80)..]);
        SHA256.HashData(file.Slice(footer, 112), file[(footer + 112)..]);
    }
}
