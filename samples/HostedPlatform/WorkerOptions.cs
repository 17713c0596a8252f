namespace HostedPlatform;

/// <summary>What the worker is told.</summary>
/// <param name="RunFor">How long the host lives before it shuts down by itself; infinite: until it is told to.</param>
public sealed record WorkerOptions(TimeSpan RunFor);
