namespace Unikraft.Platform.Kvm.Tests.Snapshots;

/// <summary>What has become of the writes to a file that nobody has synced, after a power cut.</summary>
internal enum WriteFate
{
    /// <summary>They are on the disk.</summary>
    Written,

    /// <summary>None of them is.</summary>
    Lost,

    /// <summary>Every other sector of each is.</summary>
    Torn,
}
