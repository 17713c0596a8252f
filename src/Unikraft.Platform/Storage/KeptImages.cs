using System.Runtime.CompilerServices;
using System.Security.Cryptography;

namespace Unikraft.Platform.Storage;

/// <summary>The images of instances, each content once, under its SHA-256: what was pinned by an instance boots again after a restart of the host.</summary>
internal sealed class KeptImages(DataFiles files) : IDisposable
{
    internal const string Folder = "images";

    private readonly ConditionalWeakTable<GuestImage, ImageRecord> _records = [];
    private readonly SemaphoreSlim _publishing = new(1, 1);

    internal static string NameOf(string digest) => Path.Combine(Folder, digest);

    /// <summary>Keeps the content of an image. One that cannot be read yet is read from where it is.</summary>
    internal async Task KeepAsync(GuestImage image, CancellationToken cancellationToken)
    {
        if (_records.TryGetValue(image, out ImageRecord? known) && known.Digest is not null)
        {
            return;
        }

        ReadOnlyMemory<byte> content;
        try
        {
            content = await image.ReadAsync(cancellationToken).ConfigureAwait(false);
        }
        catch (ImageException)
        {
            // Whoever boots it hears of that; a backend may know it by its name alone.
            _records.AddOrUpdate(image, new ImageRecord(image.Name, Digest: null, Path.GetFullPath(image.Name)));
            return;
        }

        string digest = Convert.ToHexStringLower(SHA256.HashData(content.Span));
        await _publishing.WaitAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            if (!files.List(Folder).Contains(digest, StringComparer.Ordinal))
            {
                files.Publish(NameOf(digest), content);
            }
        }
        finally
        {
            _publishing.Release();
        }

        _records.AddOrUpdate(image, new ImageRecord(image.Name, digest, Path: null));
    }

    internal ImageRecord RecordOf(GuestImage image) =>
        _records.TryGetValue(image, out ImageRecord? record) ? record : new ImageRecord(image.Name, Digest: null, Path.GetFullPath(image.Name));

    /// <summary>The image of a record, which is read and checked when it is first needed.</summary>
    internal GuestImage Load(ImageRecord record)
    {
        GuestImage image = record switch
        {
            { Digest: { } digest } => GuestImage.FromReader(record.Name, _ => new ValueTask<ReadOnlyMemory<byte>>(Read(digest, []))),
            { Path: { } path } => GuestImage.FromReader(
                record.Name,
                async cancellationToken => await File.ReadAllBytesAsync(path, cancellationToken).ConfigureAwait(false)),
            _ => GuestImage.FromFile(record.Name),
        };
        _records.AddOrUpdate(image, record);
        return image;
    }

    /// <exception cref="DataDamageException">The file is missing or damaged.</exception>
    internal byte[] Read(string digest, IReadOnlyList<Guid> dependents)
    {
        string path = files.PathOf(NameOf(digest));
        byte[]? content = files.TryRead(NameOf(digest));
        return content is not null && string.Equals(Convert.ToHexStringLower(SHA256.HashData(content)), digest, StringComparison.Ordinal)
            ? content
            : throw new DataDamageException(
                path,
                dependents,
                $"The image '{path}' is {(content is null ? "missing" : "not as it was written")}. Put a sound copy of it there; what was booted from it cannot "
                + "boot without.");
    }

    /// <summary>Removes what no record refers to.</summary>
    internal void Collect(IEnumerable<string> digests)
    {
        HashSet<string> needed = new(digests, StringComparer.Ordinal);
        foreach (string name in files.List(Folder).Where(name => !needed.Contains(name)))
        {
            files.DeleteIfPossible(Path.Combine(Folder, name));
        }
    }

    public void Dispose() => _publishing.Dispose();
}
