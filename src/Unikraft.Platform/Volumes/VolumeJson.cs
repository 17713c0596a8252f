using System.Text.Json.Serialization;

namespace Unikraft.Platform.Volumes;

[JsonSourceGenerationOptions(DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingDefault, UseStringEnumConverter = true)]
[JsonSerializable(typeof(VolumeChange))]
internal sealed partial class VolumeJson : JsonSerializerContext;
