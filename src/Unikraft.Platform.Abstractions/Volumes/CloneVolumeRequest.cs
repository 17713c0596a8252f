namespace Unikraft.Platform;

/// <summary>Describes the clone of a volume.</summary>
public sealed record CloneVolumeRequest
{
    /// <summary>The name of the clone, by the rules of <see cref="CreateVolumeRequest.Name"/>. Default: generated.</summary>
    public string? Name { get; init; }

    /// <summary>The tags of the clone, by the rules of <see cref="CreateVolumeRequest.Tags"/>. Default: none.</summary>
    public IReadOnlyList<string>? Tags { get; init; }
}
