using System.Text.Json.Serialization;

namespace Unikraft.Platform.Diagnostics;

[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.SnakeCaseLower)]
[JsonSerializable(typeof(MetricsDocument[]))]
internal sealed partial class MetricsJsonContext : JsonSerializerContext;
