using System.Text.Json.Serialization;

namespace Unikraft.Platform.Latency;

/// <summary>A goal, and whether a measurement meets it.</summary>
/// <param name="Text">The goal.</param>
/// <param name="IsMet">Whether it is met; <see langword="null"/> when there is no floor to tell it by.</param>
internal sealed record Goal(
    [property: JsonPropertyName("text")] string Text,
    [property: JsonPropertyName("met")] bool? IsMet);
