using System.Collections.ObjectModel;
using System.Runtime.CompilerServices;
using System.Security.Cryptography;

namespace Unikraft.Platform.Storage;

/// <summary>The images of instances, each content once, under its SHA-256: what was pinned by an instance boots again after a restart of the host.</summary>
internal sealed class KeptImages(DataFiles files) : IDisposable
{
    internal const string Folder = "images";

    private readonly ConditionalWeakTable<GuestImage, ImageRecord> _records = [];
    private readonly SemaphoreSlim _publishing = new(1, 1);

    // Names that this process knows to be on the disk.
    private readonly HashSet<string> _synced = new(StringComparer.Ordinal);

    internal static string NameOf(string digest) => Path.Combine(Folder, digest);

    /// <summary>Keeps the content of an image. One that cannot be read yet is read from where it is.</summary>
    internal async Task KeepAsync(GuestImage image, CancellationToken cancellationToken)
    {
        if (_records.TryGetValue(image, out ImageRecord? known) && known.Digest is not null)
        {
            return;
        }

        GuestImageContent content;
        try
        {
            content = await image.ReadContentAsync(cancellationToken).ConfigureAwait(false);
        }
        catch (ImageException)
        {
            // Whoever boots it hears of that; a backend may know it by its name alone.
            _records.AddOrUpdate(image, new ImageRecord(image.Name, Digest: null, Path.GetFullPath(image.Name)));
            return;
        }

        string digest = await PublishAsync(content.Kernel, cancellationToken).ConfigureAwait(false);
        _records.AddOrUpdate(image, new ImageRecord(image.Name, digest, Path: null)
        {
            Initrd = content.Initrd.IsEmpty ? null : await PublishAsync(content.Initrd, cancellationToken).ConfigureAwait(false),
            CommandLine = content.CommandLine,
            Args = content.Args,
            Env = content.Env,
        });
    }

    internal ImageRecord RecordOf(GuestImage image) =>
        _records.TryGetValue(image, out ImageRecord? record) ? record : new ImageRecord(image.Name, Digest: null, Path.GetFullPath(image.Name));

    /// <summary>The image of a record, which is read and checked when it is first needed.</summary>
    internal GuestImage Load(ImageRecord record)
    {
        GuestImage image = record switch
        {
            { Digest: { } digest } => GuestImage.FromReader(record.Name, _ => new ValueTask<GuestImageContent>(new GuestImageContent(Read(digest, []))
            {
                Initrd = record.Initrd is { } initrd ? Read(initrd, []) : default(ReadOnlyMemory<byte>),
                CommandLine = record.CommandLine,
                Args = record.Args ?? [],
                Env = record.Env ?? ReadOnlyDictionary<string, string>.Empty,
            })),
            { Path: { } path } => GuestImage.FromReader(record.Name, cancellationToken => GuestImage.FromFile(path).ReadContentAsync(cancellationToken)),
            _ => GuestImage.FromFile(record.Name),
        };
        _records.AddOrUpdate(image, record);
        return image;
    }

    /// <exception cref="DataDamageException">The file is missing or damaged.</exception>
    internal byte[] Read(string digest, IReadOnlyList<Guid> dependents)
    {
        string path = files.PathOf(NameOf(digest));
        byte[]? content;
        try
        {
            content = files.TryRead(NameOf(digest));
        }
        catch (StorageException error) when (DataFiles.IsUnreadable(error))
        {
            throw new DataDamageException(
                path,
                dependents,
                $"The image '{path}' cannot be read: {error.Message} Put a sound copy of it there; what was booted from it cannot boot without.",
                error);
        }

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

    private async Task<string> PublishAsync(ReadOnlyMemory<byte> content, CancellationToken cancellationToken)
    {
        string digest = Convert.ToHexStringLower(SHA256.HashData(content.Span));
        await _publishing.WaitAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            if (!files.List(Folder).Contains(digest, StringComparer.Ordinal))
            {
                files.Publish(NameOf(digest), content);
                _synced.Add(digest);
            }
            else if (!_synced.Contains(digest))
            {
                // A name that is there may be one whose way to the disk failed: nobody may be told of an image before it is there for good.
                files.SyncDirectory(files.PathOf(Folder));
                _synced.Add(digest);
            }

            return digest;
        }
        finally
        {
            _publishing.Release();
        }
    }
}
