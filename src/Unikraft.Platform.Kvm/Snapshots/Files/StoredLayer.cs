using Unikraft.Platform.Kvm.Memory;

namespace Unikraft.Platform.Kvm.Snapshots.Files;

/// <summary>What a directory knows of one of its layer files. Everything but the gate is guarded by the lock of the directory.</summary>
internal sealed class StoredLayer(Guid id)
{
    internal Guid Id { get; } = id;

    internal string Name { get; } = LayerFormat.NameOf(id);

    /// <summary>Held while the file is opened, so that it is verified once, however many want it.</summary>
    internal SemaphoreSlim Gate { get; } = new(1, 1);

    /// <summary>The state files that refer to it, by name.</summary>
    internal HashSet<string> Dependents { get; } = new(StringComparer.Ordinal);

    /// <summary>The operations under way that need the file.</summary>
    internal int Pins { get; set; }

    /// <summary>The opened file, without a reference of its own: it lives as long as a snapshot or a machine needs it.</summary>
    internal (MemoryLayer Layer, LayerContents Contents)? Opened { get; set; }

    /// <summary>The root checksum, when all that is known of it agrees.</summary>
    internal Digest? Root { get; set; }

    /// <summary>Whether it is in the publication log, and has no file yet.</summary>
    internal bool IsLogged { get; set; }

    /// <summary>Why there never was a file, in words that follow its name, when that is known.</summary>
    internal string? Loss { get; set; }

    /// <summary>The file as it was when its pages were verified.</summary>
    internal FileStamp? Verified { get; set; }

    internal bool IsUnused => Dependents.Count == 0 && Pins == 0 && Opened is null;
}
