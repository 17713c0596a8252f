using System.Buffers.Binary;
using Unikraft.Platform.Kvm.Memory;
using Unikraft.Platform.Kvm.Snapshots;
using Unikraft.Platform.Kvm.Snapshots.Files;
using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Kvm.Tests.Snapshots;

/// <summary>Files with right checksums and wrong content: what the parsers let through is sound, and nothing but their own error comes out.</summary>
public sealed class HostileFileTests : SnapshotFilesTest
{
    private static readonly long[] Interesting =
    [
        0, 1, 2, 3, 7, 8, 9, 63, 64, 65, 127, 128, 4095, 4096, 4097, 899, 900, 901, 0x10_0000, 0x10_5000, 900 * 4096, int.MaxValue, int.MinValue,
        uint.MaxValue, 1L << 26, (1L << 26) + 1, 1L << 38, long.MaxValue, long.MinValue, -1, -4096,
    ];

    private const string CasesVariable = "UNIKRAFT_FUZZ_CASES";

    // A case takes some microseconds: so many of each at most, whatever is asked for.
    private static readonly int StateCases = CasesOf(divisor: 4, otherwise: 60_000, most: 500_000);
    private static readonly int KernelStateCases = CasesOf(divisor: 20, otherwise: 10_000, most: 100_000);
    private static readonly int LayerCases = CasesOf(divisor: 10, otherwise: 20_000, most: 200_000);
    private static readonly int LogCases = CasesOf(divisor: 20, otherwise: 5_000, most: 100_000);

    [Fact]
    public async Task Mutated_states_are_refused_or_mean_what_they_say() => MutateStates(await SoundStateAsync(), StateCases, seed: 41);

    [Fact]
    public async Task Mutated_states_of_kernels_are_refused_or_mean_what_they_say() =>
        MutateStates(SyntheticKernel.StateOf(StateFile.Decode(await SoundStateAsync())), KernelStateCases, seed: 44);

    /// <summary>Every byte of the part that only kernels have is read, or must be what it is.</summary>
    /// <remarks>Not in the SVM lab: files, of which KVM knows nothing.</remarks>
    [Fact]
    [Trait("Lab", "TooLong")]
    public async Task No_bit_of_the_state_of_a_kernel_is_passed_over()
    {
        byte[] sound = SyntheticKernel.StateOf(StateFile.Decode(await SoundStateAsync()));
        Assert.True(sound.AsSpan().SequenceEqual(StateFile.Encode(StateFile.Decode(sound))));
        int refused = 0;
        for (int offset = sound.Length - 32 - SyntheticKernel.SizeOf(vcpus: 2); offset < sound.Length - 32; offset++)
        {
            byte[] file = [.. sound];
            file[offset] ^= (byte)(1 << (offset % 8));
            StateFile.Seal(file);
            try
            {
                Assert.True(file.AsSpan().SequenceEqual(StateFile.Encode(StateFile.Decode(file))), $"byte {offset}");
            }
            catch (FileDamageException)
            {
                refused++;
            }
        }

        Assert.InRange(refused, 50, sound.Length / 2);
    }

    private static void MutateStates(byte[] sound, int cases, int seed)
    {
        bool isKernel = StateFile.Decode(sound).Kernel is not null;
        Random random = new(seed);
        int accepted = 0;
        for (int i = 0; i < cases; i++)
        {
            byte[] file = [.. sound];
            if (random.Next(4) == 0)
            {
                file = Restructure(random, file, ranges: isKernel ? 0 : 2);
            }
            else
            {
                Mutate(random, file, file.Length - 32);
            }

            if (random.Next(20) == 0)
            {
                Array.Resize(ref file, Math.Max(0, file.Length + random.Next(-200, 200)));
                if (file.Length >= 24)
                {
                    BinaryPrimitives.WriteInt64LittleEndian(file.AsSpan(16), file.Length);
                }
            }

            if (file.Length > 32)
            {
                StateFile.Seal(file);
            }

            SnapshotState state;
            try
            {
                state = StateFile.Decode(file);
            }
            catch (FileDamageException)
            {
                continue;
            }

            // Nothing is lost and nothing is made up: every bit that was accepted is written again.
            Assert.True(file.AsSpan().SequenceEqual(StateFile.Encode(state)), $"case {i}");
            AssertSound(state);
            accepted++;
        }

        // Registers are KVM's to judge, so many mutations are let through; but not all.
        Assert.InRange(accepted, cases / 20, cases / 20 * 19);
    }

    [Theory]
    [InlineData(8, 3, SnapshotFileError.UnknownVersion)]
    [InlineData(12, 2)]
    [InlineData(16, 5)]
    [InlineData(40, 4095)]
    [InlineData(40, 0)]
    [InlineData(40, 1 << 20)]
    [InlineData(48, 0x10_4001)]
    [InlineData(48, 0x10_3000)]
    [InlineData(48, 899 * 4096)]
    [InlineData(48, -4096)]
    [InlineData(56, 1)]
    [InlineData(56, 901 * 4096)]
    [InlineData(64, -1)]
    [InlineData(72, -1)]
    [InlineData(80, 0)]
    [InlineData(84, 128)]
    [InlineData(88, 2)]
    [InlineData(88, 14)]
    [InlineData(96, 0)]
    [InlineData(96, 9)]
    [InlineData(100, 0)]
    [InlineData(100, 65)]
    [InlineData(104, 1)]
    [InlineData(104, 5)]
    [InlineData(108, -1)]
    [InlineData(108, 5)]
    [InlineData(112, -1)]
    [InlineData(112, 65_537)]
    [InlineData(116, 5183)]
    [InlineData(120, -1)]
    [InlineData(Ranges, 0xF_0000)]
    [InlineData(Ranges + 8, 0x10_3001)]
    [InlineData(Ranges + 8, 0x10_0000)]
    [InlineData(Ranges + 8, 0x10_4000)]
    [InlineData(Ranges + 16, 2)]
    [InlineData(Ranges + 20, 1)]
    [InlineData(Vcpus + 8, 1)]
    [InlineData(Vcpus + 20, 6)]
    [InlineData(Vcpus + 24, 2)]
    [InlineData(Vcpus + 24, 7)]
    [InlineData(Vcpus + 28, 1)]
    [InlineData(Vcpus + 5184 + 8, 0x10_0010)]
    [InlineData(Vcpus + 5184 + 8, 900 * 4096 - 8)]
    [InlineData(Vcpus + 5184 + 8, -8)]
    [InlineData(Vcpus + 5184 + 16, 1)]
    [InlineData(Extents, 1)]
    [InlineData(Extents, -1)]
    [InlineData(Extents + 4, 0)]
    [InlineData(Extents + 4, 2)]
    [InlineData(Extents + 4, -1)]
    [InlineData(Extents + 8, 2)]
    [InlineData(Extents + 8, -1)]
    [InlineData(Extents + 36, 900)]
    [InlineData(Extents + 40, 401)]
    public async Task A_state_with_a_value_that_cannot_be_is_refused(int offset, long value, SnapshotFileError error = SnapshotFileError.Damaged)
    {
        byte[] file = await SoundStateAsync();
        StateFile.Decode(file);
        if (offset is >= 40 and < 80 or 16 or 120 or >= Ranges and < Vcpus and not (Ranges + 16 or Ranges + 20) or Vcpus + 8 or Vcpus + 5184 + 8)
        {
            BinaryPrimitives.WriteInt64LittleEndian(file.AsSpan(offset), value);
        }
        else
        {
            BinaryPrimitives.WriteInt32LittleEndian(file.AsSpan(offset), (int)value);
        }

        StateFile.Seal(file);

        Assert.Equal(error, Assert.Throws<FileDamageException>(() => StateFile.Decode(file)).Error);
    }

    [Fact]
    public async Task A_layer_named_twice_is_refused()
    {
        byte[] file = await SoundStateAsync();
        file.AsSpan(Layers, 16).CopyTo(file.AsSpan(Layers + 48));
        StateFile.Seal(file);

        Assert.Throws<FileDamageException>(() => StateFile.Decode(file));
    }

    [Fact]
    public async Task Mutated_layers_are_refused_or_mean_what_they_say()
    {
        int cases = LayerCases;
        using SyntheticGuest guest = new(42);
        await using SnapshotDirectory directory = await OpenDirectoryAsync();
        using KvmSnapshot snapshot = guest.CapturePages(1, 2, 3, 7, 20, 21);
        await SaveAsync(directory, snapshot);
        byte[] sound = await File.ReadAllBytesAsync(Folder.LayerOf(LayersOf(snapshot).Single()));
        Random random = new(42);
        int accepted = 0;
        for (int i = 0; i < cases; i++)
        {
            int pages = 6;
            int runs = 3;
            byte[] file = random.Next(3) == 0 ? RestructureLayer(random, sound, ref pages, ref runs) : [.. sound];
            int index = (1 + pages) * 4096;
            if (random.Next(2) == 0)
            {
                Mutate(random, file, 64);
            }
            else
            {
                Mutate(random, file.AsSpan(index), runs * 8);
            }

            LayerResealer.Seal(file, pages, runs);
            if (random.Next(8) == 0)
            {
                // As it may come from elsewhere: cut, longer, or damaged anywhere behind the seal.
                Array.Resize(ref file, Math.Max(0, file.Length + random.Next(-300, 300)));
                file.AsSpan(random.Next(file.Length))[0] ^= (byte)random.Next(2);
            }

            using StoredFile stored = new MemoryFile(file).Open();
            LayerContents contents;
            try
            {
                contents = LayerFile.ReadContents(stored);
                LayerFile.VerifyPages(stored, contents, static _ => { }, CancellationToken.None);
            }
            catch (FileDamageException)
            {
                continue;
            }

            int free = 0;
            foreach (PageRun run in contents.Index.Runs)
            {
                Assert.True(run.Start >= free && run.Length > 0 && run.End <= contents.Header.GuestPages, $"case {i}");
                free = run.End + 1;
            }

            Assert.Equal((pages, runs), (contents.Index.StoredPages, contents.Index.Runs.Length));
            Assert.Equal(file.Length, contents.FileLength);
            accepted++;
        }

        Assert.InRange(accepted, 1, cases / 20 * 19);
    }

    /// <remarks>Not in the SVM lab: a parser of which KVM knows nothing.</remarks>
    [Fact]
    [Trait("Lab", "TooLong")]
    public async Task Mutated_logs_are_refused_or_mean_what_they_say()
    {
        using SyntheticGuest guest = new(45);
        byte[][] corpus = [await LogOfAsync(guest, 1, 1), await LogOfAsync(guest, 9, 4), await LogOfAsync(guest, 30, 2)];
        Random random = new(45);
        int refused = 0;
        int damagedRecords = 0;
        int read = 0;
        for (int i = 0; i < LogCases; i++)
        {
            byte[] file = [.. corpus[random.Next(corpus.Length)]];
            int records = file.Length / LogFormat.Block;
            for (int mutations = random.Next(1, 4); mutations > 0; mutations--)
            {
                // A header, the first block of a record, or what follows it; mostly with the checksum that it needs.
                int block = random.Next(3) == 0 ? random.Next(2) : random.Next(records);
                Span<byte> bytes = file.AsSpan(block * LogFormat.Block, LogFormat.Block);
                Mutate(random, bytes, random.Next(2) == 0 ? 192 : LogFormat.Block);
                if (random.Next(8) != 0)
                {
                    SealLogBlock(bytes, isHeader: block < 2);
                }
            }

            switch (random.Next(12))
            {
                case 0:
                    Array.Resize(ref file, random.Next(file.Length + (2 * LogFormat.Block)));
                    break;
                case 1:
                    // A record in the place of another.
                    int from = random.Next(2, records) * LogFormat.Block;
                    file.AsSpan(from, LogFormat.Block).ToArray().CopyTo(file.AsSpan(random.Next(2, records) * LogFormat.Block));
                    break;
            }

            if (random.Next(4) != 0)
            {
                SealLogRecords(file);
            }

            MemoryFile stored = new(file);
            try
            {
                using PublicationLog? log = PublicationLog.TryOpen(new FileStore(stored, "/"));
                LogContents contents = log!.Read(CancellationToken.None);
                foreach ((var record, SnapshotState state) in contents.Sound)
                {
                    // It lies in the file, its layers are what it says, and it is read again when it gets its files.
                    Assert.True(record.Offset >= LogFormat.RecordsStart && record.Length > 0 && record.Offset + record.Length <= file.Length, $"case {i}");
                    foreach (LoggedLayer layer in record.Layers)
                    {
                        Assert.Equal((layer.Header.StoredPages, layer.Header.Runs), (layer.Index.StoredPages, layer.Index.Runs.Length));
                        Assert.InRange(layer.ContentOffset + ((long)layer.Index.StoredPages << PageSize.Shift), LogFormat.RecordsStart, file.Length);
                    }

                    AssertSound(state);
                    Assert.InRange(log.Read(record).Capacity, record.Length / LogFormat.Block, int.MaxValue);
                    read++;
                }

                damagedRecords += contents.Damaged.Count;
            }
            catch (FileDamageException)
            {
                refused++;
            }
        }

        Assert.InRange(refused, 1, LogCases / 2);
        Assert.InRange(damagedRecords, 1, int.MaxValue);
        Assert.InRange(read, LogCases / 4, int.MaxValue);
    }

    /// <summary>Each number is the last that there is: none follows it.</summary>
    [Fact]
    public async Task A_log_whose_numbers_overflow_comes_to_an_end()
    {
        using SyntheticGuest guest = new(46);
        byte[] file = await LogOfAsync(guest, 1, 1);
        for (int offset = LogFormat.RecordsStart; offset < file.Length; offset += LogFormat.Block)
        {
            BinaryPrimitives.WriteInt64LittleEndian(file.AsSpan(offset + 32), long.MaxValue);
            SealLogBlock(file.AsSpan(offset, LogFormat.Block), isHeader: false);
        }

        using PublicationLog? log = PublicationLog.TryOpen(new FileStore(new MemoryFile(file), "/"));

        Assert.Empty(log!.Read(CancellationToken.None).Sound);
    }

    /// <summary>A small log that has begun over again, with records that have no files yet.</summary>
    private async Task<byte[]> LogOfAsync(SyntheticGuest guest, int page, int count)
    {
        using TestDirectory folder = new();
        PublicationLogOptions options = new(new TestKit.ManualTimeProvider()) { Length = 128 << 10, MaxLength = 128 << 10, Threshold = 1 };
        SnapshotDirectory directory = SnapshotDirectory.Open(FileSystem, folder.Path, Microsoft.Extensions.Logging.Abstractions.NullLogger.Instance, options, space: null, CancellationToken.None);
        await using (directory.ConfigureAwait(false))
        {
            using KvmSnapshot first = guest.CapturePages(page);
            await SaveAsync(directory, first);
            await directory.Preparing;
            for (int i = 0; i < 7; i++)
            {
                using KvmSnapshot snapshot = guest.CapturePages([.. Enumerable.Range(0, count).Select(each => page + i + (3 * each))]);
                await SaveAsync(directory, snapshot);
                if (i % 3 == 1)
                {
                    directory.Settle();
                }
            }

            return await File.ReadAllBytesAsync(Path.Combine(folder.Path, LogFormat.Name));
        }
    }

    // What a record consists of gets the checksum that it needs, so that what is behind it is reached.
    private static void SealLogRecords(Span<byte> file)
    {
        for (int offset = LogFormat.RecordsStart; offset + LogFormat.Block <= file.Length; offset += LogFormat.Block)
        {
            Span<byte> block = file.Slice(offset, LogFormat.Block);
            long length = BinaryPrimitives.ReadInt64LittleEndian(block[40..]);
            if (block.StartsWith("UKPUBLR"u8) && length > LogFormat.Block && length % LogFormat.Block == 0 && length <= file.Length - offset)
            {
                RecordChecksum checksum = default;
                checksum.Add(file.Slice(offset + LogFormat.Block, (int)length - LogFormat.Block));
                checksum.Write(block[64..]);
                SealLogBlock(block, isHeader: false);
            }
        }
    }

    private static void SealLogBlock(Span<byte> block, bool isHeader)
    {
        int checksum = isHeader ? 64 : LogFormat.Block - Digest.SizeInBytes;
        Digest.Compute(block[..checksum]).Write(block[checksum..]);
    }

    [Fact]
    public async Task A_state_that_takes_pages_which_its_layer_does_not_hold_is_refused()
    {
        using SyntheticGuest guest = new(43);
        await using SnapshotDirectory directory = await OpenDirectoryAsync();
        using KvmSnapshot snapshot = guest.CapturePages(5, 6, 7);
        Guid id = await SaveAsync(directory, snapshot);
        byte[] file = await File.ReadAllBytesAsync(Folder.StateOf(id));
        const int OnlyExtent = Layers + 48;
        foreach ((int start, int length) in ((int, int)[])[(4, 3), (5, 4), (8, 1), (0, 900)])
        {
            BinaryPrimitives.WriteInt32LittleEndian(file.AsSpan(OnlyExtent), start);
            BinaryPrimitives.WriteInt32LittleEndian(file.AsSpan(OnlyExtent + 4), length);
            StateFile.Seal(file);
            await File.WriteAllBytesAsync(Folder.StateOf(id), file);
            SnapshotFileException error = await Assert.ThrowsAsync<SnapshotFileException>(() => directory.OpenAsync(id));
            Assert.Equal((Folder.LayerOf(LayersOf(snapshot).Single()), SnapshotFileError.Mismatched), (error.Path, error.Error));
        }
    }

    private const int Ranges = 128;
    private const int Vcpus = Ranges + 2 * 24;
    private const int Layers = Vcpus + 2 * 5184;
    private const int Extents = Layers + 2 * 48;

    /// <summary>A state of two vCPUs, two layers and four extents: pages 0, 1, 2, 500.</summary>
    private async Task<byte[]> SoundStateAsync()
    {
        using SyntheticGuest guest = new(40);
        await using SnapshotDirectory directory = await OpenDirectoryAsync();
        using KvmSnapshot first = guest.CapturePages(0, 1, 2);
        using KvmSnapshot second = guest.CapturePages(1, 500);
        return await File.ReadAllBytesAsync(Folder.StateOf(await SaveAsync(directory, second)));
    }

    // A record of a table too many or too few, or two in each other's place; with the count that says so or without, and the length of the file put right or not.
    private static byte[] Restructure(Random random, byte[] sound, int ranges)
    {
        int less = (2 - ranges) * 24;
        (int Offset, int Size, int Count, int CountAt)[] tables =
        [
            .. ranges == 0 ? [] : ((int, int, int, int)[])[(Ranges, 24, 2, 100)],
            (Vcpus - less, 5184, 2, 96),
            (Layers - less, 48, 2, 104),
            (Extents - less, 12, 4, 108),
        ];
        (int offset, int size, int count, int countAt) = tables[random.Next(tables.Length)];
        int first = offset + (random.Next(count) * size);
        byte[] record = sound[first..(first + size)];
        byte[] file;
        int change;
        switch (random.Next(3))
        {
            case 0:
                (file, change) = ([.. sound[..first], .. record, .. sound[first..]], 1);
                break;
            case 1:
                (file, change) = ([.. sound[..first], .. sound[(first + size)..]], -1);
                break;
            default:
                (file, change) = ([.. sound], 0);
                int second = offset + (random.Next(count) * size);
                sound.AsSpan(second, size).CopyTo(file.AsSpan(first));
                record.CopyTo(file.AsSpan(second));
                break;
        }

        if (random.Next(4) != 0)
        {
            BinaryPrimitives.WriteInt32LittleEndian(file.AsSpan(countAt), BinaryPrimitives.ReadInt32LittleEndian(file.AsSpan(countAt)) + change);
        }

        if (random.Next(4) != 0)
        {
            BinaryPrimitives.WriteInt64LittleEndian(file.AsSpan(16), file.Length);
        }

        return file;
    }

    // A page or a run too many or too few, with the header that says so or without.
    private static byte[] RestructureLayer(Random random, byte[] sound, ref int pages, ref int runs)
    {
        List<byte[]> stored = [.. Enumerable.Range(1, pages).Select(page => sound[(page * 4096)..((page + 1) * 4096)])];
        List<byte[]> table = [.. Enumerable.Range(0, runs).Select(run => sound[((1 + 6) * 4096 + run * 8)..((1 + 6) * 4096 + run * 8 + 8)])];
        switch (random.Next(4))
        {
            case 0:
                stored.Add(stored[random.Next(pages)]);
                break;
            case 1:
                stored.RemoveAt(random.Next(pages));
                break;
            case 2:
                table.Insert(random.Next(runs), table[random.Next(runs)]);
                break;
            default:
                table.RemoveAt(random.Next(runs));
                break;
        }

        (pages, runs) = (stored.Count, table.Count);
        byte[] file =
        [
            .. sound[..4096],
            .. stored.SelectMany(page => page),
            .. table.SelectMany(run => run),
            .. new byte[((pages + 63) / 64 * 32) + 144],
        ];
        "UKLAYEND"u8.CopyTo(file.AsSpan(file.Length - 144));
        BinaryPrimitives.WriteInt64LittleEndian(file.AsSpan(file.Length - 136), file.Length);
        if (random.Next(4) != 0)
        {
            BinaryPrimitives.WriteInt64LittleEndian(file.AsSpan(48), pages);
            BinaryPrimitives.WriteInt64LittleEndian(file.AsSpan(56), runs);
        }

        return file;
    }

    private static int CasesOf(int divisor, int otherwise, int most) =>
        int.TryParse(Environment.GetEnvironmentVariable(CasesVariable), out int cases) ? Math.Clamp(cases / divisor, 1000, most) : Repetitions.Of(otherwise);

    private static void Mutate(Random random, Span<byte> file, int length)
    {
        for (int mutations = random.Next(1, 4); mutations > 0; mutations--)
        {
            // Half of them hit the fields, the others anything.
            int offset = random.Next(2) == 0 ? random.Next(Math.Min(length, 256)) : random.Next(length);
            switch (random.Next(4))
            {
                case 0:
                    file[offset] ^= (byte)(1 << random.Next(8));
                    break;
                case 1 when offset <= length - 8:
                    BinaryPrimitives.WriteInt64LittleEndian(file[(offset & ~7)..], Interesting[random.Next(Interesting.Length)]);
                    break;
                case 2 when offset <= length - 4:
                    BinaryPrimitives.WriteInt32LittleEndian(file[(offset & ~3)..], (int)Interesting[random.Next(Interesting.Length)]);
                    break;
                default:
                    file[offset] = (byte)random.Next(256);
                    break;
            }
        }
    }

    private static void AssertSound(SnapshotState state)
    {
        long pages = state.Layout.MemorySize >> PageSize.Shift;
        int free = 0;
        foreach (StoredExtent extent in state.Extents)
        {
            Assert.True(extent.Start >= free && extent.Length > 0 && extent.Start + extent.Length <= pages);
            Assert.InRange(extent.Layer, 0, state.Layers.Count - 1);
            free = extent.Start + extent.Length;
        }

        Assert.True(state.Kernel is not null || state.Layout.HeapStart < state.Layout.MemorySize);
        Assert.InRange(state.Disks.Count, 0, 12);
        Assert.All(state.Disks, disk => Assert.InRange(disk.Slot, 0, 11));
        Assert.Equal(state.Disks.Count, state.Disks.DistinctBy(disk => disk.Slot).Count());
        Assert.Equal(state.Layout.Vcpus, state.Vcpus.Count);
    }
}
