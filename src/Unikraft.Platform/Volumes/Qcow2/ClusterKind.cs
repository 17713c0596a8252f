namespace Unikraft.Platform.Volumes.Qcow2;

/// <summary>Where the bytes of a cluster are.</summary>
internal enum ClusterKind
{
    /// <summary>In the layer beneath; zeroes where there is none.</summary>
    Unallocated,

    /// <summary>Nowhere: they are zeroes.</summary>
    Zero,

    /// <summary>In a cluster of the file.</summary>
    Data,

    /// <summary>In the file, compressed.</summary>
    Compressed,
}
