using System.Text.Json.Serialization;
using Unikraft.Platform.Volumes;

namespace Unikraft.Platform.Storage.Archives;

/// <summary>The documents of an OCI image layout, as far as archives have them.</summary>
internal sealed record OciLayout(string ImageLayoutVersion);

internal sealed record OciIndex(int SchemaVersion, IReadOnlyList<OciDescriptor> Manifests, string? MediaType = null);

internal sealed record OciManifest(
    int SchemaVersion,
    OciDescriptor Config,
    IReadOnlyList<OciDescriptor> Layers,
    string? MediaType = null,
    string? ArtifactType = null);

internal sealed record OciDescriptor(
    string MediaType,
    string Digest,
    long Size,
    string? ArtifactType = null,
    IReadOnlyDictionary<string, string>? Annotations = null);

/// <summary>What an archive says of its checkpoint.</summary>
/// <param name="Version">The version of this document.</param>
/// <param name="Uuid">The checkpoint.</param>
/// <param name="Checkpoint">Its record, without a place in a directory.</param>
/// <param name="History">The checkpoints that it descends from, newest first.</param>
/// <param name="Machine">What its snapshot needs of a machine.</param>
/// <param name="Files">The files of its snapshot, and their digests.</param>
internal sealed record ArchivedCheckpoint(
    int Version,
    Guid Uuid,
    CheckpointRecord Checkpoint,
    IReadOnlyList<CheckpointReference> History,
    IReadOnlyDictionary<string, string> Machine,
    IReadOnlyDictionary<string, string> Files)
{
    /// <summary>The volumes that belong to it; none in version 1.</summary>
    public IReadOnlyList<ArchivedVolume>? Volumes { get; init; }

    /// <summary>The images that the volumes consist of, each once.</summary>
    [JsonIgnore]
    public IEnumerable<ImageChecksum> VolumeImages => (Volumes ?? []).SelectMany(static volume => volume.Images).DistinctBy(static image => image.Name, StringComparer.Ordinal);
}

[JsonSourceGenerationOptions(
    PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase,
    DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull,
    RespectNullableAnnotations = true,
    MaxDepth = 16)]
[JsonSerializable(typeof(OciLayout))]
[JsonSerializable(typeof(OciIndex))]
[JsonSerializable(typeof(OciManifest))]
[JsonSerializable(typeof(ArchivedCheckpoint))]
internal sealed partial class OciSerializer : JsonSerializerContext;
