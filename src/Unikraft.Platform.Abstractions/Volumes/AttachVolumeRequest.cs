namespace Unikraft.Platform;

/// <summary>Describes how a volume is attached to an instance.</summary>
public sealed record AttachVolumeRequest
{
    /// <summary>The instance.</summary>
    public required NameOrUuid Instance { get; init; }

    /// <summary>Where the guest mounts it: an absolute path without <c>.</c> and <c>..</c> parts and without colons, of up to 240 bytes.</summary>
    public required string At { get; init; }

    /// <summary>Whether the guest can only read it. A volume that can be written to is attached to one instance only. Default: false.</summary>
    public bool ReadOnly { get; init; }
}
