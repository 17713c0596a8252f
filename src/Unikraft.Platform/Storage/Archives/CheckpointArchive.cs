using System.Security.Cryptography;
using System.Text.Json;
using System.Text.Json.Serialization.Metadata;
using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Volumes;

namespace Unikraft.Platform.Storage.Archives;

/// <summary>Reads an archive of a checkpoint. What is read is hostile: nothing is believed that was not compared with its digest.</summary>
internal sealed class CheckpointArchive : IDisposable
{
    /// <summary>The version of an archive with volumes, which older platforms must not import without.</summary>
    internal const int Version = 2;
    internal const int VersionWithoutVolumes = 1;
    internal const string ArtifactType = "application/vnd.unikraft.platform.checkpoint.v1";
    internal const string ConfigType = "application/vnd.unikraft.platform.checkpoint.config.v1+json";
    internal const string SnapshotType = "application/vnd.unikraft.platform.snapshot.file.v1";
    internal const string VolumeType = "application/vnd.unikraft.platform.volume.image.v1";
    internal const string ImageType = "application/vnd.unikraft.platform.image.v1";
    internal const string IndexType = "application/vnd.oci.image.index.v1+json";
    internal const string ManifestType = "application/vnd.oci.image.manifest.v1+json";
    internal const string TitleAnnotation = "org.opencontainers.image.title";
    internal const string NameAnnotation = "org.opencontainers.image.ref.name";
    internal const string LayoutVersion = "1.0.0";

    internal const string DigestFolder = "sha256";

    private const string DigestPrefix = "sha256:";
    private const int MaxDocument = 64 << 20;
    private const int MaxVolumeImages = ImageChain.MaxDepth;
    private const int SectorSize = 512;
    private static readonly System.Buffers.SearchValues<char> HexDigits = System.Buffers.SearchValues.Create("0123456789abcdef");

    private const int CopySize = 1 << 20;

    private readonly string _path;
    private readonly IArchiveReader _files;

    private CheckpointArchive(string path, IArchiveReader files, OciManifest manifest, ArchivedCheckpoint checkpoint) =>
        (_path, _files, Manifest, Checkpoint) = (path, files, manifest, checkpoint);

    internal string Path => _path;

    internal OciManifest Manifest { get; }

    internal ArchivedCheckpoint Checkpoint { get; }

    internal static string DigestOf(ReadOnlySpan<byte> content) => DigestPrefix + Convert.ToHexStringLower(SHA256.HashData(content));

    internal static string DigestOf(ImageChecksum image) => DigestPrefix + image.Sha256;

    internal static string NameOf(string digest) => $"blobs/{DigestFolder}/{digest[DigestPrefix.Length..]}";

    /// <summary>Opens an archive and reads what it says of itself.</summary>
    /// <exception cref="CheckpointArchiveException">It is none, or not as it was written.</exception>
    /// <exception cref="DataVersionException">It is of a newer version.</exception>
    /// <exception cref="StorageException">The host cannot read it.</exception>
    internal static CheckpointArchive Open(string path, IFileLayer layer) => Open(path, () =>
    {
        DataFiles folder = new(layer, System.IO.Path.GetDirectoryName(path) ?? path, isSynced: true);
        string name = System.IO.Path.GetFileName(path);
        if (folder.Stat(name) is not { } found)
        {
            throw new CheckpointArchiveException(path, isIncompatible: false, $"There is no archive '{path}'.");
        }

        return found.IsDirectory ? new DirectoryArchive(new DataFiles(layer, path, isSynced: true)) : new TarArchive(folder, name);
    });

    /// <summary>The same of an archive whose files are wherever somebody finds them.</summary>
    /// <param name="path">What errors call it.</param>
    /// <param name="open">Finds its files. They are closed with the archive.</param>
    /// <exception cref="CheckpointArchiveException">It is none, or not as it was written.</exception>
    /// <exception cref="DataVersionException">It is of a newer version.</exception>
    /// <exception cref="StorageException">The host cannot read it.</exception>
    internal static CheckpointArchive Open(string path, Func<IArchiveReader> open)
    {
        IArchiveReader? files = null;
        try
        {
            files = open();
            return Read(path, files);
        }
        catch (Exception error)
        {
            files?.Dispose();
            if (error is PlatformException)
            {
                throw;
            }

            if (error is IOException or UnauthorizedAccessException or JsonException or FormatException or InvalidDataException or ArgumentException
                or OverflowException or NotSupportedException)
            {
                throw Broken(path, error.Message, error);
            }

            throw;
        }
    }

    /// <summary>Reads what an archive says of itself.</summary>
    private static CheckpointArchive Read(string path, IArchiveReader files)
    {
        OciLayout layout = Parse(ReadDocument(path, files, "oci-layout", size: null), OciSerializer.Default.OciLayout);
        Require(path, string.Equals(layout.ImageLayoutVersion, LayoutVersion, StringComparison.Ordinal), "it is not an OCI image layout of version 1.0.0");
        OciIndex index = Parse(ReadDocument(path, files, "index.json", size: null), OciSerializer.Default.OciIndex);
        RequireAll(path, index.Manifests);
        OciDescriptor[] found = [.. index.Manifests.Where(static manifest => manifest?.MediaType is ManifestType)];
        Require(path, found.Length == 1, $"it has {found.Length} manifests instead of one");
        OciManifest manifest = Parse(ReadBlob(path, files, found[0]), OciSerializer.Default.OciManifest);
        RequireAll(path, manifest.Config, manifest.Layers);
        Require(
            path,
            string.Equals(manifest.ArtifactType, ArtifactType, StringComparison.Ordinal) && manifest.Config.MediaType is ConfigType && manifest.Layers.All(static layer => layer is not null),
            "it is not an archive of a checkpoint");
        byte[] config = ReadBlob(path, files, manifest.Config);
        using (JsonDocument document = JsonDocument.Parse(config, new JsonDocumentOptions { MaxDepth = 16 }))
        {
            // A newer version may have other members, but says so.
            if (document.RootElement.ValueKind == JsonValueKind.Object
                && document.RootElement.TryGetProperty("version", out JsonElement version)
                && version.TryGetInt32(out int number)
                && number > Version)
            {
                throw new DataVersionException(path, number, Version);
            }
        }

        ArchivedCheckpoint checkpoint = Parse(config, OciSerializer.Default.ArchivedCheckpoint);
        RequireAll(path, checkpoint.Checkpoint, checkpoint.History, checkpoint.Machine, checkpoint.Files);
        byte[] record = RecordSerializer.Encode(checkpoint.Checkpoint);
        RecordSerializer.Decode(StateKind.Checkpoint, record);
        Require(
            path,
            checkpoint.Version == (checkpoint.Volumes is null ? VersionWithoutVolumes : Version)
            && checkpoint.History.All(static entry => entry is { Name: not null })
            && checkpoint.Files.All(static file => IsPlainName(file.Key) && IsDigest(file.Value))
            && (checkpoint.Checkpoint.Snapshot is null) == (checkpoint.Files.Count == 0 && checkpoint.Volumes is null)
            && AreSound(checkpoint.Volumes)
            && checkpoint.Files.Values.All(manifest.Layers.Select(static layer => layer.Digest).ToHashSet(StringComparer.Ordinal).Contains)
            && manifest.Layers.All(static layer => layer.Size >= 0 && IsDigest(layer.Digest)),
            "it contradicts itself");
        return new CheckpointArchive(path, files, manifest, checkpoint);
    }

    /// <summary>Whether the archive has a blob, or leaves it out.</summary>
    internal bool Has(string digest)
    {
        using Stream? blob = _files.Open(NameOf(digest));
        return blob is not null;
    }

    /// <summary>Reads every blob and compares it with its digest.</summary>
    /// <param name="isElsewhere">Whether a blob that is not here is at hand.</param>
    /// <param name="cancellationToken">Cancels the verification.</param>
    /// <exception cref="CheckpointArchiveException">One is missing or damaged.</exception>
    internal void Verify(Func<string, bool> isElsewhere, CancellationToken cancellationToken)
    {
        HashSet<string> needed = new(Checkpoint.Files.Values, StringComparer.Ordinal);
        needed.UnionWith(Checkpoint.Checkpoint.Configuration.Image.Digests.Select(static image => DigestPrefix + image));
        needed.UnionWith(Checkpoint.VolumeImages.Select(static image => DigestOf(image)));

        foreach (string digest in needed)
        {
            OciDescriptor? layer = FindLayer(digest);
            if (layer is not null && Has(digest))
            {
                Copy(layer, Stream.Null, cancellationToken);
            }
            else
            {
                Require(_path, isElsewhere(digest), $"it leaves out {digest}, which is not here either. Export it without saying that it is known");
            }
        }
    }

    /// <summary>Copies a blob, which is compared with its digest.</summary>
    /// <exception cref="CheckpointArchiveException">It is damaged.</exception>
    internal void Copy(string digest, Stream destination, CancellationToken cancellationToken)
    {
        OciDescriptor? layer = FindLayer(digest);
        Require(_path, layer is not null, $"it has no blob {digest}");
        Copy(layer!, destination, cancellationToken);
    }

    /// <summary>How many bytes of a blob are in the archive, whatever it says of those that it leaves out.</summary>
    internal long SizeOf(string digest)
    {
        using Stream? blob = _files.Open(NameOf(digest));
        return blob?.Length ?? 0;
    }

    public void Dispose() => _files.Dispose();

    internal static bool IsDigest(string? digest) =>
        digest is not null
        && digest.StartsWith(DigestPrefix, StringComparison.Ordinal)
        && digest.Length == DigestPrefix.Length + (2 * Checksum.Size)
        && digest.AsSpan(DigestPrefix.Length).IndexOfAnyExcept(HexDigits) < 0;

    // Names of volumes' images are those of files here later on, which no other file may have: they are made at random.
    private static bool AreSound(IReadOnlyList<ArchivedVolume>? volumes)
    {
        if (volumes is null)
        {
            return true;
        }

        if (volumes.Count is 0 or > MachineDisk.VolumeSlots
            || !volumes.All(static volume => volume is { At: not null, Images.Count: > 0 and <= MaxVolumeImages, Slot: >= 0 and < MachineDisk.VolumeSlots, Size: > 0 }
                && volume.Size % SectorSize == 0
                && volume.Filesystem is VolumeFilesystem.Ext4 or VolumeFilesystem.None
                && volume.Images.All(static image => image is { Name: not null, Length: > 0 } && IsDigest(DigestPrefix + image.Sha256))
                && volume.Images.Index().All(image => IsImageName(image.Item.Name, isLast: image.Index == volume.Images.Count - 1))
                && volume.Images.DistinctBy(static image => image.Name, StringComparer.Ordinal).Count() == volume.Images.Count)
            || volumes.DistinctBy(static volume => volume.Slot).Count() != volumes.Count)
        {
            return false;
        }

        // The same name means the same file.
        return volumes.SelectMany(static volume => volume.Images).Distinct().GroupBy(static image => image.Name, StringComparer.Ordinal).All(static group => group.Count() == 1);
    }

    private static bool IsImageName(string name, bool isLast) =>
        ImageDirectory.IsImage(name, ImageDirectory.OverlaySuffix) || (isLast && ImageDirectory.IsImage(name, ImageDirectory.RawSuffix));

    private static bool IsPlainName(string name) =>
        name.Length is > 0 and <= 255 && name[0] != '.' && name.All(static c => char.IsAsciiLetterOrDigit(c) || c is '-' or '.');

    private static void Require(string path, bool isMet, string what)
    {
        if (!isMet)
        {
            throw Broken(path, what, cause: null);
        }
    }

    // Members that a document does not have are null, whatever the compiler thinks.
    private static void RequireAll(string path, params ReadOnlySpan<object?> members)
    {
        foreach (object? member in members)
        {
            Require(path, member is not null, "a part of a document is missing");
        }
    }

    private static CheckpointArchiveException Broken(string path, string what, Exception? cause) => new(
        path,
        isIncompatible: false,
        $"The archive '{path}' cannot be imported: {what}. Nothing was imported. Export the checkpoint again.",
        cause);

    private static T Parse<T>(byte[] document, JsonTypeInfo<T> type) =>
        JsonSerializer.Deserialize(document, type) ?? throw new JsonException("a document is null");

    private static byte[] ReadBlob(string path, IArchiveReader files, OciDescriptor descriptor)
    {
        Require(path, IsDigest(descriptor.Digest), $"'{descriptor.Digest}' is not a SHA-256 digest");
        byte[] blob = ReadDocument(path, files, NameOf(descriptor.Digest), descriptor.Size);
        Require(path, string.Equals(DigestOf(blob), descriptor.Digest, StringComparison.Ordinal), $"the blob {descriptor.Digest} is not as it was written");
        return blob;
    }

    private static byte[] ReadDocument(string path, IArchiveReader files, string name, long? size)
    {
        using Stream? stream = files.Open(name);
        Require(path, stream is not null, $"'{name}' is missing");
        Require(path, stream!.Length <= MaxDocument && (size is null || stream.Length == size), $"'{name}' has {stream.Length} bytes");
        byte[] content = new byte[stream.Length];
        stream.ReadExactly(content);
        return content;
    }

    private OciDescriptor? FindLayer(string digest) => Manifest.Layers.FirstOrDefault(layer => string.Equals(layer.Digest, digest, StringComparison.Ordinal));

    private void Copy(OciDescriptor descriptor, Stream destination, CancellationToken cancellationToken)
    {
        using Stream? blob = _files.Open(NameOf(descriptor.Digest));
        Require(_path, blob is not null && blob.Length == descriptor.Size, $"the blob {descriptor.Digest} is missing or has the wrong length");
        using IncrementalHash hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        byte[] buffer = new byte[CopySize];
        for (int read; (read = blob!.Read(buffer)) > 0;)
        {
            cancellationToken.ThrowIfCancellationRequested();
            hash.AppendData(buffer, 0, read);
            destination.Write(buffer, 0, read);
        }

        string digest = DigestPrefix + Convert.ToHexStringLower(hash.GetHashAndReset());
        Require(_path, string.Equals(digest, descriptor.Digest, StringComparison.Ordinal), $"the blob {descriptor.Digest} is not as it was written");
    }
}
