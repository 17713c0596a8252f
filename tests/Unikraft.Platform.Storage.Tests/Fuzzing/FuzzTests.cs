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

    private static readonly int Cases =
        int.TryParse(Environment.GetEnvironmentVariable(CasesVariable), out int cases) ? cases / 5 : OtherwiseCases / 5;

    [Fact]
    public void Manifests() => Fuzz(
        [new Manifest(1, 7, Checksum.Of("x"u8)).Encode(), new Manifest(2, 1, default).Encode(), "unikraft-platform-data 1\n"u8.ToArray()],
        input => Manifest.Decode(input, "/data"));

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
        });
        Fuzz([.. corpus.Select(content => content[Math.Min(content.Length, 144)..])], body => MetadataFormat.DecodeChanges(body, random.Next(4), random.Next(2) == 0));
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
        });
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

            Expect(() =>
            {
                using CheckpointArchive opened = CheckpointArchive.Read("archive", new MemoryArchive(archive));
                opened.Verify(_ => false, CancellationToken.None);
            });
        }
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
        using CheckpointArchive opened = CheckpointArchive.Read("archive", new MemoryArchive(archive));
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

    private static void Fuzz(List<byte[]> corpus, Action<byte[]> read)
    {
        Mutator mutator = new(corpus.Count, corpus);
        for (int i = 0; i < Cases; i++)
        {
            byte[] input = mutator.Next();
            Expect(() => read(input));
        }
    }

    // What Open of an archive turns into its own error is the same set.
    private static void Expect(Action read)
    {
        try
        {
            read();
        }
        catch (Exception error) when (error is MetadataDamageException or PlatformException or JsonException or FormatException or InvalidDataException
            or ArgumentException or NotSupportedException or IOException)
        {
            // Refused.
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
