namespace Unikraft.Platform;

/// <summary>A file of the host that the guest reads as a disk.</summary>
public sealed record InstanceRom
{
    /// <summary>The name by which the guest finds it: 1 to 20 ASCII characters.</summary>
    public required string Name { get; init; }

    /// <summary>The file, which holds the bytes of the disk and must not change while it is in use.</summary>
    public required string Path { get; init; }

    /// <summary>Where the guest mounts it, by the rules of <see cref="AttachVolumeRequest.At"/>. Default: <see langword="null"/>, not said.</summary>
    public string? At { get; init; }
}
