using System.Buffers.Binary;
using System.Security.Cryptography;
using System.Text;
using Unikraft.Platform.Kvm.Memory;
using Unikraft.Platform.Kvm.Snapshots;
using Unikraft.Platform.Kvm.Snapshots.Files;

namespace Unikraft.Platform.Kvm.Tests.Snapshots;

/// <summary>The files are what docs/snapshot-format.md says, read here byte by byte without the reader of the library.</summary>
public sealed class FormatTests : SnapshotFilesTest
{
    [Fact]
    public async Task A_layer_file_is_as_documented()
    {
        using SyntheticGuest guest = new(31);
        await using SnapshotDirectory directory = await OpenDirectoryAsync();
        int[] pages = [0, 1, 2, 10, .. Enumerable.Range(100, 70), 899];
        using KvmSnapshot snapshot = guest.CapturePages(pages);
        await SaveAsync(directory, snapshot);
        Guid id = LayersOf(snapshot).Single();
        byte[] file = await File.ReadAllBytesAsync(Folder.LayerOf(id));
        const int Stored = 75;
        const int Index = 4096 + Stored * 4096;
        const int Checksums = Index + 4 * 8;
        const int Footer = Checksums + 2 * 32;

        Assert.Equal("UKLAYER\u001a", Encoding.ASCII.GetString(file, 0, 8));
        Assert.Equal([1u, 4096u, 4096u, 64u], Numbers32(file, 8, 4));
        Assert.Equal(id, new Guid(file.AsSpan(24, 16), bigEndian: true));
        Assert.Equal([900L, Stored, 4L], Numbers64(file, 40, 3));
        Assert.All(file[64..4096], value => Assert.Equal(0, value));
        for (int i = 0; i < pages.Length; i++)
        {
            Assert.True(guest.Memory.Slice(pages[i] * 4096, 4096).SequenceEqual(file.AsSpan(4096 + i * 4096, 4096)));
        }

        Assert.Equal([0u, 3u, 10u, 1u, 100u, 70u, 899u, 1u], Numbers32(file, Index, 8));
        Assert.Equal(SHA256.HashData(file.AsSpan(4096, 64 * 4096)), file[Checksums..(Checksums + 32)]);
        Assert.Equal(SHA256.HashData(file.AsSpan(4096 + 64 * 4096, 11 * 4096)), file[(Checksums + 32)..Footer]);
        Assert.Equal("UKLAYEND", Encoding.ASCII.GetString(file, Footer, 8));
        Assert.Equal([file.Length], Numbers64(file, Footer + 8, 1));
        Assert.Equal(SHA256.HashData(file.AsSpan(0, 4096)), file[(Footer + 16)..(Footer + 48)]);
        Assert.Equal(SHA256.HashData(file.AsSpan(Index, Checksums - Index)), file[(Footer + 48)..(Footer + 80)]);
        Assert.Equal(SHA256.HashData(file.AsSpan(Checksums, Footer - Checksums)), file[(Footer + 80)..(Footer + 112)]);
        Assert.Equal(SHA256.HashData(file.AsSpan(Footer, 112)), file[(Footer + 112)..]);
        Assert.Equal(Footer + 144, file.Length);
    }

    [Fact]
    public async Task A_state_file_is_as_documented()
    {
        using SyntheticGuest guest = new(32);
        await using SnapshotDirectory directory = await OpenDirectoryAsync();
        using KvmSnapshot first = guest.CapturePages(0, 1, 2);
        using KvmSnapshot snapshot = guest.CapturePages(1, 500);
        Guid id = await SaveAsync(directory, snapshot);
        byte[] file = await File.ReadAllBytesAsync(Folder.StateOf(id));
        const int Ranges = 128;
        const int Vcpus = Ranges + 2 * 24;
        const int Layers = Vcpus + 2 * 5184;
        const int Extents = Layers + 2 * 48;
        const int Disks = Extents + 4 * 12;
        const int Console = Disks + 2 * 80;
        byte[] input = snapshot.Device.ConsoleInput;

        Assert.Equal("UKSTATE\u001a", Encoding.ASCII.GetString(file, 0, 8));
        Assert.Equal([2u, 1u], Numbers32(file, 8, 2));
        Assert.Equal([file.Length], Numbers64(file, 16, 1));
        Assert.Equal(id, new Guid(file.AsSpan(24, 16), bigEndian: true));
        Assert.Equal([900L * 4096, SyntheticGuest.StacksStart, 2 * 4096, 1_234, 123_456_789_012], Numbers64(file, 40, 5));
        Assert.Equal([2u, 127u, 2u | 4u, unchecked((uint)-7), 2u, 2u, 2u, 4u, (uint)input.Length, 5184u | 2u << 16, 56_789u, 0u], Numbers32(file, 80, 12));
        Assert.Equal([0x10_0000L, 0x10_3000L, 0L, 0x10_3000L, 0x10_4000L, 1L], Numbers64(file, Ranges, 6));

        Assert.Equal([(long)snapshot.Vcpus[0].Wait!.Value.Deadline, 0L], Numbers64(file, Vcpus, 2));
        Assert.Equal([5u, 7u, 1u | 2u, 0u], Numbers32(file, Vcpus + 16, 4));
        Assert.Equal([-1L, 0x10_3010L], Numbers64(file, Vcpus + 5184, 2));
        Assert.Equal([0u, 12u, 1u, 0u], Numbers32(file, Vcpus + 5184 + 16, 4));
        Assert.Equal(SyntheticGuest.RegistersOf(snapshot, 0), file[(Vcpus + 32)..(Vcpus + 5184)]);
        Assert.Equal(SyntheticGuest.RegistersOf(snapshot, 1), file[(Vcpus + 5184 + 32)..Layers]);

        Guid bottom = LayersOf(first).Single();
        Guid[] layers = [new(file.AsSpan(Layers, 16), bigEndian: true), new(file.AsSpan(Layers + 48, 16), bigEndian: true)];
        Assert.Equal(LayersOf(snapshot).Order(), layers.Order());
        for (int i = 0; i < layers.Length; i++)
        {
            byte[] layer = await File.ReadAllBytesAsync(Folder.LayerOf(layers[i]));
            Assert.Equal(layer[^32..], file[(Layers + 48 * i + 16)..(Layers + 48 * i + 48)]);
        }

        uint old = (uint)Array.IndexOf(layers, bottom);
        uint own = 1 - old;
        Assert.Equal([0u, 1u, old, 1u, 1u, own, 2u, 1u, old, 500u, 1u, own], Numbers32(file, Extents, 12));
        Assert.Equal([1u, 0u], Numbers32(file, Disks, 2));
        Assert.Equal([1L << 20], Numbers64(file, Disks + 8, 1));
        Assert.Equal([11u, 1u], Numbers32(file, Disks + 80, 2));
        Assert.Equal([512L], Numbers64(file, Disks + 88, 1));
        Assert.Equal(input, file[Console..(Console + input.Length)]);
        Assert.Equal(SHA256.HashData(file.AsSpan(0, file.Length - 32)), file[^32..]);
        Assert.Equal(Console + input.Length + 32, file.Length);
    }

    [Fact]
    public async Task A_reader_of_the_documentation_assembles_the_same_memory()
    {
        using SyntheticGuest guest = new(33);
        await using SnapshotDirectory directory = await OpenDirectoryAsync();
        for (int depth = 0; depth < 10; depth++)
        {
            using KvmSnapshot snapshot = guest.Capture();
            Guid id = await SaveAsync(directory, snapshot);
            Assert.True(guest.Memory.SequenceEqual(Assemble(id)));
        }

        byte[] Assemble(Guid id)
        {
            byte[] state = File.ReadAllBytes(Folder.StateOf(id));
            byte[] memory = new byte[BinaryPrimitives.ReadInt64LittleEndian(state.AsSpan(40))];
            uint[] counts = Numbers32(state, 96, 4);
            int layers = 128 + 24 * (int)counts[1] + 5184 * (int)counts[0];
            int extents = layers + 48 * (int)counts[2];
            for (int i = 0; i < counts[3]; i++)
            {
                uint[] extent = Numbers32(state, extents + 12 * i, 3);
                Guid layer = new(state.AsSpan(layers + 48 * (int)extent[2], 16), bigEndian: true);
                byte[] file = File.ReadAllBytes(Folder.LayerOf(layer));
                long[] sizes = Numbers64(file, 48, 2);
                int position = 0;
                for (int run = 0; run < sizes[1]; run++)
                {
                    uint[] pages = Numbers32(file, 4096 * (1 + (int)sizes[0]) + 8 * run, 2);
                    if (extent[0] >= pages[0] && extent[0] < pages[0] + pages[1])
                    {
                        int from = 4096 * (1 + position + (int)(extent[0] - pages[0]));
                        file.AsSpan(from, 4096 * (int)extent[1]).CopyTo(memory.AsSpan(4096 * (int)extent[0]));
                    }

                    position += (int)pages[1];
                }
            }

            return memory;
        }
    }

    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    public void A_page_index_finds_what_a_table_of_pages_finds(int seed)
    {
        Random random = new(seed);
        for (int round = 0; round < 50; round++)
        {
            PageBitmap stored = new(300);
            for (int page = 0; page < 300; page++)
            {
                if (random.Next(10) < seed * 3)
                {
                    stored.Set(page);
                }
            }

            PageIndex index = PageIndex.From(stored);
            Assert.Equal(stored.Count(), index.StoredPages);
            int position = 0;
            for (int page = 0; page < 300; page++)
            {
                int run = 0;
                while (page + run < 300 && stored[page + run])
                {
                    run++;
                }

                Assert.Equal(run > 0, index.TryFind(page, 1, out int found));
                Assert.Equal(run > 0 ? position : 0, found);
                Assert.Equal(run > 0, index.TryFind(page, Math.Max(1, run), out _));
                Assert.False(index.TryFind(page, run + 1, out _));
                position += run > 0 ? 1 : 0;
            }
        }
    }

    [Fact]
    public void Runs_longer_than_an_extent_are_one_run_in_the_index()
    {
        PageBitmap stored = new(PageExtent.MaxLength * 2 + 10);
        stored.WordsOf(0, stored.Pages).Fill(ulong.MaxValue);

        Assert.Equal([new PageRun(0, PageExtent.MaxLength * 2 + 10)], PageIndex.From(stored).Runs.ToArray());
    }

    private static uint[] Numbers32(byte[] file, int offset, int count) =>
        [.. Enumerable.Range(0, count).Select(i => BinaryPrimitives.ReadUInt32LittleEndian(file.AsSpan(offset + 4 * i)))];

    private static long[] Numbers64(byte[] file, int offset, int count) =>
        [.. Enumerable.Range(0, count).Select(i => BinaryPrimitives.ReadInt64LittleEndian(file.AsSpan(offset + 8 * i)))];
}
