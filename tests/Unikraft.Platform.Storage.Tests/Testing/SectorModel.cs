using System.Globalization;
using System.Runtime.InteropServices;
using Unikraft.Platform.Contracts;
using Unikraft.Platform.Volumes;

namespace Unikraft.Platform.Storage.Tests.Testing;

/// <summary>What may be on each sector of a volume, by what was asked for and acknowledged. Knows nothing of images.</summary>
internal sealed class SectorModel
{
    private const int Sector = 512;
    private const int Words = Sector / sizeof(ulong);

    private readonly ulong[][] _may;

    internal SectorModel(int sizeMb) => _may = [.. Enumerable.Repeat((ulong[])[0], (sizeMb << 20) / Sector)];

    private SectorModel(ulong[][] may) => _may = may;

    internal SectorModel Clone() => new([.. _may]);

    /// <summary>Writes sectors that can be told from all others, some in each of a few places, and flushes them.</summary>
    /// <param name="device">The volume, as the guest has it.</param>
    /// <param name="stamp">What they are told by.</param>
    internal async Task WriteAsync(IBlockDevice device, int stamp)
    {
        Random random = new(stamp);
        List<(int First, int Count)> places = [.. Enumerable.Range(0, 3).Select(_ => (First: random.Next(_may.Length - 1), Count: random.Next(1, 40))).Select(place => (place.First, Math.Min(place.Count, _may.Length - place.First)))];
        foreach ((int first, int count) in places)
        {
            for (int sector = first; sector < first + count; sector++)
            {
                _may[sector] = [.. _may[sector].Append(Stamp(stamp, sector)).Distinct()];
            }

            await device.WriteAsync(first * (long)Sector, Contents(stamp, first, count)).AsTask().Guarded();
        }

        await device.FlushAsync().AsTask().Guarded();
        foreach ((int first, int count) in places)
        {
            for (int sector = first; sector < first + count; sector++)
            {
                _may[sector] = [Stamp(stamp, sector)];
            }
        }
    }

    internal async Task AssertHeldByAsync(IBlockDevice device, string context)
    {
        byte[] all = new byte[_may.Length * Sector];
        await device.ReadAsync(0, all).AsTask().Guarded();
        AssertMayBe(all, context);
    }

    internal void AssertMayBe(ReadOnlySpan<byte> contents, string context)
    {
        Assert.Equal(_may.Length * Sector, contents.Length);
        ReadOnlySpan<ulong> words = MemoryMarshal.Cast<byte, ulong>(contents);
        for (int sector = 0; sector < _may.Length; sector++)
        {
            ReadOnlySpan<ulong> found = words.Slice(sector * Words, Words);
            if (found.ContainsAnyExcept(found[0]) || !_may[sector].Contains(found[0]))
            {
                Assert.Fail(string.Create(
                    CultureInfo.InvariantCulture,
                    $"{context}: sector {sector} is {found[0]:x}, and may be {string.Join(' ', _may[sector].Select(static each => each.ToString("x", CultureInfo.InvariantCulture)))}"));
            }
        }
    }

    private static ulong Stamp(int stamp, int sector) => ((ulong)stamp << 32) | (uint)(sector + 1);

    private static byte[] Contents(int stamp, int first, int count)
    {
        byte[] data = new byte[count * Sector];
        Span<ulong> words = MemoryMarshal.Cast<byte, ulong>(data.AsSpan());
        for (int word = 0; word < words.Length; word++)
        {
            words[word] = Stamp(stamp, first + (word / Words));
        }

        return data;
    }
}
