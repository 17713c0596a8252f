namespace Unikraft.Platform.Instances;

/// <summary>What an instance does by itself, and what it is reached at. Not inherited from the source of a clone.</summary>
internal sealed record InstancePolicies(RestartPolicy Restart, InstanceFeatures Features, ScaleToZero? ScaleToZero, IReadOnlyList<InstanceService> Services);
