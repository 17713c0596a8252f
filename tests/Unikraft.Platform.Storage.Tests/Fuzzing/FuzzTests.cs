using System.Formats.Tar;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using Unikraft.Platform.Storage.Archives;
using Unikraft.Platform.Storage.Tests.Testing;
using Unikraft.Platform.Volumes;

namespace Unikraft.Platform.Storage.Tests.Fuzzing;

/// <summary>Every reader of files on hostile input: it fails with its own error, or what it has read is within bounds. How many cases is set by the environment.</summary>
public sealed class FuzzTests
{
    private const string CasesVariable = "UNIKRAFT_FUZZ_CASES";
    private const int OtherwiseCases = 20_000;

    /// <summary>How many share the cases.</summary>
    private const int Parsers = 7;

    private static readonly int Cases =
        (int.TryParse(Environment.GetEnvironmentVariable(CasesVariable), out int cases) ? cases : OtherwiseCases) / Parsers;

    private static readonly Type[] Damage = [typeof(MetadataDamageException)];
    private static readonly Type[] OfArchives = [typeof(CheckpointArchiveException), typeof(DataVersionException)];

    [Fact]
    public void Manifests() => Fuzz(
        [new Manifest(1, 7, Checksum.Of("x"u8)).Encode(), new Manifest(2, 1, default).Encode(), "unikraft-platform-data 1\n"u8.ToArray()],
        input => Manifest.Decode(input, "/data"),
        typeof(MetadataDamageException),
        typeof(DataVersionException));

    [Fact]
    public void Metadata()
    {
        List<byte[]> corpus = [];
        for (int seed = 0; seed < 3; seed++)
        {
            SimulatedDisk disk = new();
            Storage.Tests.Metadata.MetadataModel model = new(seed);
            using (MetadataStore store = Storage.Tests.Metadata.MetadataModel.Open(disk))
            {
                for (int i = 0; i < 3; i++)
                {
                    model.Step(store);
                }
            }

            foreach (string file in disk.Files.Where(file => file.Contains("/metadata/", StringComparison.Ordinal)))
            {
                byte[] content = disk.Content(file);
                corpus.Add(content[..Math.Min(content.Length, Array.FindLastIndex(content, value => value != 0) + 9)]);
            }
        }

        // Frames that are sound with the checksums that they need: what is behind them is reached, too.
        Random random = new(9);
        Fuzz(corpus, input =>
        {
            MetadataFile file = random.Next(2) == 0
                ? MetadataFile.ReadSnapshot(input, 1)
                : MetadataFile.ReadJournal(input, 1, 0, default);
            Assert.True(file.Length <= input.Length);
        }, Damage);
        Fuzz([.. corpus.Select(content => content[Math.Min(content.Length, 144)..])], body => MetadataFormat.DecodeChanges(body, random.Next(4), random.Next(2) == 0), Damage);
    }

    [Fact]
    public void Records()
    {
        ConfigurationRecord configuration = new(new ImageRecord("i", new string('a', 64), null), 1, 64, ["a"], new Dictionary<string, string>(StringComparer.Ordinal) { ["k"] = "v" });
        ResourceRecord[] records =
        [
            new InstanceRecord
            {
                Name = "n",
                CreatedAt = DateTimeOffset.UnixEpoch,
                Order = 1,
                Configuration = configuration,
                Last = new PastRunRecord(DateTimeOffset.UnixEpoch, DateTimeOffset.UnixEpoch, 1, 2, 3, 4, 5, 6, null),
                Restart = new RestartRecord(2, 3),
            },
            new CheckpointRecord
            {
                Name = "c",
                CreatedAt = DateTimeOffset.UnixEpoch,
                Order = 1,
                Configuration = configuration,
                Source = new SourceRecord(Guid.NewGuid(), "s", DateTimeOffset.UnixEpoch),
                Snapshot = Guid.NewGuid(),
            },
            new TemplateRecord { Name = "t", CreatedAt = DateTimeOffset.UnixEpoch, Order = 1, Configuration = configuration, ConvertedAt = DateTimeOffset.UnixEpoch },
        ];
        Random random = new(3);
        Fuzz([.. records.Select(RecordSerializer.Encode)], input =>
        {
            ResourceRecord record = RecordSerializer.Decode((StateKind)random.Next(1, 4), input);
            Assert.NotNull(record.Configuration.Args);
        }, Damage);
        Fuzz(
            [Encoding.UTF8.GetBytes($$"""{"checkpoint":"{{Guid.NewGuid()}}","name":"c","createdAt":"2026-01-01T00:00:00+00:00","parent":"{{Guid.NewGuid()}}"}""")],
            input => Assert.NotNull(RecordSerializer.DecodeLineage(input).Name),
            Damage);
    }

    /// <summary>It becomes the name of a file.</summary>
    [Theory]
    [InlineData("../../../../../../../../../../../../../../../../../../../../../x")]
    [InlineData("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")]
    public void A_digest_that_is_none_is_damage(string digest)
    {
        Assert.Equal(64, digest.Length);
        RecordSerializer.Decode(StateKind.Template, Encode(new string('a', 64)));
        Assert.Throws<MetadataDamageException>(() => RecordSerializer.Decode(StateKind.Template, Encode(digest)));

        static byte[] Encode(string digest) => RecordSerializer.Encode(new TemplateRecord
        {
            Name = "t",
            CreatedAt = DateTimeOffset.UnixEpoch,
            Order = 1,
            Configuration = new ConfigurationRecord(new ImageRecord("i", digest, null), 1, 64, ["a"], new Dictionary<string, string>(StringComparer.Ordinal)),
            ConvertedAt = DateTimeOffset.UnixEpoch,
        });
    }

    [Fact]
    public void Logs()
    {
        SimulatedDisk disk = new();
        disk.MakeDirectory("/data/logs");
        Instances.InstanceLog log = new(1 << 16);
        KeptLogs logs = new(new DataFiles(disk, "/data", isSynced: false), 1 << 16);
        logs.Attach(owner: null, Guid.Empty, log);
        for (int i = 0; i < 3; i++)
        {
            log.Append(Encoding.ASCII.GetBytes(new string('x', 100)));
            logs.Flush();
        }

        Fuzz([disk.Content($"/data/logs/{Guid.Empty:D}.log")], input =>
        {
            List<(long Offset, ReadOnlyMemory<byte> Data)> frames = [];
            (long length, _) = KeptLogs.Read(input, frames);
            Assert.True(length <= input.Length && frames.Sum(frame => frame.Data.Length) <= input.Length);
        });
    }

    [Fact]
    public void Archives()
    {
        Dictionary<string, byte[]> sound = MakeArchive();
        string[] names = [.. sound.Keys];
        Random random = new(5);
        Mutator[] mutators = [.. names.Select((name, i) => new Mutator(i, [sound[name]]))];
        for (int i = 0; i < Cases; i++)
        {
            Dictionary<string, byte[]> archive = new(sound, StringComparer.Ordinal);
            int which = random.Next(names.Length);
            archive[names[which]] = mutators[which].Next();
            // With the digests that it needs, a document is read.
            string[] order = [.. names.Where(name => name.StartsWith("blobs/", StringComparison.Ordinal))];
            if (random.Next(2) == 0)
            {
                Reseal(archive, order, sound);
            }

            Expect(
                i,
                () =>
                {
                    using CheckpointArchive opened = CheckpointArchive.Open("archive", () => new MemoryArchive(archive));
                    opened.Verify(_ => false, CancellationToken.None);
                },
                OfArchives);
        }
    }

    /// <summary>The file around the documents: in every format of it that there is, with headers that have the checksums that they need.</summary>
    [Fact]
    public void Tars()
    {
        Dictionary<string, byte[]> sound = MakeArchive();
        Mutator mutator = new(11, [.. Enum.GetValues<TarEntryFormat>().Where(static format => format != TarEntryFormat.Unknown).Select(format => MakeTar(sound, format))]);
        Random random = new(11);
        int opened = 0;
        SimulatedDisk disk = new();
        for (int i = 0; i < Cases; i++)
        {
            byte[] tar = mutator.Next();
            if (random.Next(3) > 0)
            {
                ResealHeaders(tar);
            }

            disk.ResetCalls();
            disk.Damage("/archive.tar", tar);
            Expect(
                i,
                () =>
                {
                    using CheckpointArchive archive = CheckpointArchive.Open("/archive.tar", disk);
                    archive.Verify(_ => false, CancellationToken.None);
                    opened++;
                },
                OfArchives);
        }

        // Changes of what nobody reads.
        Assert.InRange(opened, 1, Cases / 2);
    }

    [Theory]
    [InlineData("77777777777")]
    [InlineData("00000777777")]
    public void A_tar_that_says_of_a_header_that_it_is_longer_than_any_is_no_archive(string size)
    {
        byte[] tar = MakeTar(MakeArchive(), TarEntryFormat.Pax);
        Assert.Equal((byte)'x', tar[156]);
        Encoding.ASCII.GetBytes(size, tar.AsSpan(124, 11));
        ResealHeaders(tar);
        SimulatedDisk disk = new();
        disk.Damage("/archive.tar", tar);

        Assert.Throws<CheckpointArchiveException>(() => CheckpointArchive.Open("/archive.tar", disk));
    }

    /// <summary>What a journal said, as far as it can be told, is what the next start finds as well.</summary>
    [Fact]
    public void VolumeJournals()
    {
        const string Root = "/volumes";
        string journal = Path.Combine(Root, VolumeJournal.FileName);
        string copy = journal + ".copy";
        SimulatedDisk sound = new();
        sound.MakeDirectory(Root);
        List<byte[]> corpus = [];
        for (int written = 0; written < 3; written++)
        {
            DataFiles files = new(sound, Root, isSynced: true);
            using VolumeJournal made = VolumeJournal.Open(files, static _ => true, out _);
            for (int i = 0; i < 4; i++)
            {
                Guid uuid = new(i + 1, 0, 0, new byte[8]);
                made.Append(i < written ? new VolumeChange { Removed = [uuid] } : new VolumeChange { Set = [VolumeOf(uuid)] });
            }

            byte[] content = sound.Content(journal);
            corpus.AddRange([content, sound.Content(copy), [.. Encoding.Latin1.GetBytes(Encoding.Latin1.GetString(content).TrimEnd('\0').Replace("volumes 3", "volumes 1", StringComparison.Ordinal))]]);
        }

        byte[][] trimmed = [.. corpus.Select(static content => content[..Math.Min(content.Length, Array.FindLastIndex(content, static value => value != 0) + 2)])];
        Mutator mutator = new(13, trimmed);
        Random random = new(13);
        int damaged = 0;
        for (int i = 0; i < Cases; i++)
        {
            byte[] input = mutator.Next();
            input = random.Next(2) == 0 ? ResealLines(input) : input;
            Array.Resize(ref input, random.Next(4) == 0 ? input.Length : (input.Length + 4095) / 4096 * 4096);
            SimulatedDisk disk = sound.AfterKill();
            disk.Damage(random.Next(4) == 0 ? copy : journal, input);
            if (random.Next(8) == 0)
            {
                disk.Damage(random.Next(2) == 0 ? copy : journal, mutator.Next());
            }

            Expect(
                i,
                () =>
                {
                    DataFiles files = new(disk, Root, isSynced: true);
                    VolumeJournal.Open(files, static _ => true, out Dictionary<Guid, VolumeRecord> first).Dispose();
                    string? aside = VolumeJournal.FindDamage(files);
                    VolumeJournal.Open(files, static _ => true, out Dictionary<Guid, VolumeRecord> second).Dispose();
                    Assert.Equal(first.Keys.Order(), second.Keys.Order());
                    Assert.Equal(aside, VolumeJournal.FindDamage(files));
                    damaged += aside is null ? 0 : 1;
                },
                typeof(StorageException));
        }

        Assert.InRange(damaged, Cases / 10, Cases);

        static VolumeRecord VolumeOf(Guid uuid) => new()
        {
            Uuid = uuid,
            Name = "name",
            CreatedAt = DateTimeOffset.UnixEpoch,
            Top = ImageDirectory.NewName(),
            Size = 1 << 20,
            Tags = ["a"],
            Images = [new ImageChecksum(ImageDirectory.NewName(), 5, new string('a', 64))],
        };
    }

    private static byte[] MakeTar(Dictionary<string, byte[]> files, TarEntryFormat format)
    {
        using MemoryStream tar = new();
        using (TarWriter writer = new(tar, format, leaveOpen: true))
        {
            foreach ((string name, byte[] content) in files)
            {
                TarEntry entry = format switch
                {
                    TarEntryFormat.V7 => new V7TarEntry(TarEntryType.V7RegularFile, name),
                    TarEntryFormat.Ustar => new UstarTarEntry(TarEntryType.RegularFile, name),
                    TarEntryFormat.Gnu => new GnuTarEntry(TarEntryType.RegularFile, "./" + name),
                    _ => new PaxTarEntry(TarEntryType.RegularFile, name, new Dictionary<string, string>(StringComparer.Ordinal) { ["comment"] = new string('c', 200) }),
                };
                using MemoryStream data = new(content);
                entry.DataStream = data;
                entry.ModificationTime = DateTimeOffset.UnixEpoch;
                writer.WriteEntry(entry);
            }

            if (format is TarEntryFormat.Gnu)
            {
                writer.WriteEntry(new GnuTarEntry(TarEntryType.SymbolicLink, new string('n', 150)) { LinkName = new string('l', 150) });
            }
        }

        return tar.ToArray();
    }

    // Every block that might be a header, which is most of what can be changed and read.
    private static void ResealHeaders(byte[] tar)
    {
        const int Block = 512;
        const int Field = 148;
        const int FieldLength = 8;
        for (int start = 0; start + Block <= tar.Length; start += Block)
        {
            Span<byte> header = tar.AsSpan(start, Block);
            if (header[0] is 0 or (byte)'{')
            {
                continue;
            }

            header.Slice(Field, FieldLength).Fill((byte)' ');
            int sum = 0;
            foreach (byte value in header)
            {
                sum += value;
            }

            Encoding.ASCII.GetBytes(Convert.ToString(sum, 8).PadLeft(6, '0') + "\0 ", header.Slice(Field, FieldLength));
        }
    }

    // With the checksums that they need, lines are read.
    private static byte[] ResealLines(byte[] input)
    {
        const int ChecksumLength = 16;
        string[] lines = Encoding.Latin1.GetString(input).Split('\n');
        for (int i = 1; i < lines.Length; i++)
        {
            if (lines[i].Length > ChecksumLength)
            {
                byte[] json = Encoding.UTF8.GetBytes(lines[i][ChecksumLength..]);
                lines[i] = Convert.ToHexStringLower(SHA256.HashData(json).AsSpan(0, ChecksumLength / 2)) + lines[i][ChecksumLength..];
            }
        }

        return Encoding.Latin1.GetBytes(string.Join('\n', lines));
    }

    // config, manifest, index: each names the one before by its digest.
    private static void Reseal(Dictionary<string, byte[]> archive, string[] blobs, Dictionary<string, byte[]> sound)
    {
        foreach (string blob in blobs)
        {
            string actual = CheckpointArchive.NameOf(CheckpointArchive.DigestOf(archive[blob]));
            if (string.Equals(actual, blob, StringComparison.Ordinal))
            {
                continue;
            }

            archive[actual] = archive[blob];
            foreach (string document in sound.Keys.Where(name => !string.Equals(name, blob, StringComparison.Ordinal)))
            {
                string text = Encoding.Latin1.GetString(archive[document]);
                archive[document] = Encoding.Latin1.GetBytes(text
                    .Replace(blob["blobs/sha256/".Length..], actual["blobs/sha256/".Length..], StringComparison.Ordinal)
                    .Replace($"\"size\":{sound[blob].Length}", $"\"size\":{archive[blob].Length}", StringComparison.Ordinal));
            }
        }
    }

    private static Dictionary<string, byte[]> MakeArchive()
    {
        Dictionary<string, byte[]> archive = new(StringComparer.Ordinal);
        byte[] content = "content"u8.ToArray();
        CheckpointRecord record = new()
        {
            Name = "c",
            CreatedAt = DateTimeOffset.UnixEpoch,
            Order = 0,
            Configuration = new ConfigurationRecord(new ImageRecord("i", null, null), 1, 64, [], new Dictionary<string, string>(StringComparer.Ordinal)),
            Source = new SourceRecord(Guid.NewGuid(), "s", DateTimeOffset.UnixEpoch),
            Snapshot = Guid.NewGuid(),
        };
        OciDescriptor layer = Add(CheckpointArchive.SnapshotType, content);
        byte[] top = "top"u8.ToArray();
        byte[] bottom = "bottom"u8.ToArray();
        OciDescriptor[] images = [Add(CheckpointArchive.VolumeType, top), Add(CheckpointArchive.VolumeType, bottom)];
        OciDescriptor config = Add(
            CheckpointArchive.ConfigType,
            JsonSerializer.SerializeToUtf8Bytes(
                new ArchivedCheckpoint(
                    CheckpointArchive.Version,
                    Guid.NewGuid(),
                    record,
                    [new CheckpointReference(Guid.NewGuid(), "a", DateTimeOffset.UnixEpoch)],
                    new Dictionary<string, string>(StringComparer.Ordinal) { ["hypervisor"] = "x" },
                    new Dictionary<string, string>(StringComparer.Ordinal) { ["file"] = layer.Digest })
                {
                    Volumes =
                    [
                        new ArchivedVolume(1, "/data", IsReadOnly: false, 1 << 20, VolumeFilesystem.Ext4, [ImageOf(ImageDirectory.OverlaySuffix, top), ImageOf(ImageDirectory.RawSuffix, bottom)]),
                        new ArchivedVolume(3, "", IsReadOnly: true, 512, VolumeFilesystem.None, [ImageOf(ImageDirectory.RawSuffix, bottom)]),
                    ],
                },
                OciSerializer.Default.ArchivedCheckpoint));
        OciDescriptor manifest = Add(
            CheckpointArchive.ManifestType,
            JsonSerializer.SerializeToUtf8Bytes(
                new OciManifest(2, config, [layer, .. images], CheckpointArchive.ManifestType, CheckpointArchive.ArtifactType),
                OciSerializer.Default.OciManifest));
        archive["index.json"] = JsonSerializer.SerializeToUtf8Bytes(new OciIndex(2, [manifest]), OciSerializer.Default.OciIndex);
        archive["oci-layout"] = JsonSerializer.SerializeToUtf8Bytes(new OciLayout("1.0.0"), OciSerializer.Default.OciLayout);
        using CheckpointArchive opened = CheckpointArchive.Open("archive", () => new MemoryArchive(archive));
        opened.Verify(_ => false, CancellationToken.None);
        return archive;

        // The same bottom under one name.
        static ImageChecksum ImageOf(string suffix, byte[] bytes) =>
            new($"{new Guid(bytes.Length, 0, 0, new byte[8]):D}{suffix}", bytes.Length, CheckpointArchive.DigestOf(bytes)["sha256:".Length..]);

        OciDescriptor Add(string type, byte[] bytes)
        {
            string digest = CheckpointArchive.DigestOf(bytes);
            archive[CheckpointArchive.NameOf(digest)] = bytes;
            return new OciDescriptor(type, digest, bytes.Length);
        }
    }

    /// <param name="corpus">What is changed.</param>
    /// <param name="read">Reads it.</param>
    /// <param name="errors">The errors that the reader says it has. Any other is a bug.</param>
    private static void Fuzz(List<byte[]> corpus, Action<byte[]> read, params Type[] errors)
    {
        Mutator mutator = new(corpus.Count, corpus);
        for (int i = 0; i < Cases; i++)
        {
            byte[] input = mutator.Next();
            Expect(i, () => read(input), errors);
        }
    }

    private static void Expect(int number, Action read, params Type[] errors)
    {
        try
        {
            read();
        }
        catch (Exception error) when (errors.Contains(error.GetType()))
        {
            // Refused.
        }
        catch (Exception error)
        {
            throw new InvalidOperationException($"case {number}", error);
        }
    }

    private sealed class MemoryArchive(Dictionary<string, byte[]> files) : IArchiveReader
    {
        public Stream? Open(string name) => files.TryGetValue(name, out byte[]? content) ? new MemoryStream(content, writable: false) : null;

        public void Dispose()
        {
            // Nothing is held.
        }
    }
}
