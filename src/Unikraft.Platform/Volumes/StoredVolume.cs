using Unikraft.Platform.Resources;

namespace Unikraft.Platform.Volumes;

/// <summary>One volume. What changes of it is guarded by the lock of the catalog.</summary>
internal sealed class StoredVolume(ResourceIdentity identity, VolumeRecord record)
{
    public ResourceIdentity Identity { get; } = identity;

    /// <summary>How long it is kept.</summary>
    public Retention Retention { get; set; } = null!;

    /// <summary>What is written down of it.</summary>
    public VolumeRecord Record { get; set; } = record;

    /// <summary>The attachments, also those to come.</summary>
    public List<VolumeMount> Mounts { get; } = [];

    /// <summary>One operation on its images at a time: opening, closing, cutting, cloning, resizing.</summary>
    public VolumeTurn Turn { get; } = new();

    /// <summary>The disk, while an instance that may write to it has it open.</summary>
    public VolumeDisk? Writer { get; set; }

    /// <summary>How many instances that may only read have it open.</summary>
    public int Readers { get; set; }

    public bool IsBusy { get; set; }

    /// <summary>Whether it is being turned into a template: nobody gets it any more.</summary>
    public bool IsConverting { get; set; }

    /// <summary>A fold of it that failed half-way. Nothing else is folded until it is settled. Guarded by <see cref="Turn"/>.</summary>
    public UnsettledFold? UnsettledFold { get; set; }

    /// <summary>Whether it can be found.</summary>
    public bool IsListed { get; set; }

    /// <summary>The last error that a guest met.</summary>
    public Exception? LastError { get; set; }

    /// <summary>Why it cannot be used.</summary>
    public Exception? Failure { get; set; }

    public bool IsBlock => Record.Top is not null;

    public bool IsOpen => Writer is not null || Readers > 0;

    /// <summary>What to call it in messages.</summary>
    public string Title => Record.Name is { } name ? $"volume '{name}'" : $"volume {Identity.Uuid:D}";
}
