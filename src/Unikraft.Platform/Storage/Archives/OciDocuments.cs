using System.Text.Json.Serialization;

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
    IReadOnlyDictionary<string, string> Files);

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
