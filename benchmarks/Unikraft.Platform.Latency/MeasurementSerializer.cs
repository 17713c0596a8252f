using System.Text.Json.Serialization;

namespace Unikraft.Platform.Latency;

[JsonSourceGenerationOptions(WriteIndented = true)]
[JsonSerializable(typeof(IReadOnlyList<Measurement>))]
internal sealed partial class MeasurementSerializer : JsonSerializerContext;
