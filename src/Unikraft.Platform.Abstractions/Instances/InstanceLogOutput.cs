namespace Unikraft.Platform;

/// <summary>What was read of the log of an instance.</summary>
/// <param name="Uuid">The UUID of the instance.</param>
/// <param name="Name">Its name.</param>
/// <param name="State">Its state at that moment.</param>
/// <param name="Log">What was read.</param>
public sealed record InstanceLogOutput(Guid Uuid, string Name, InstanceState State, LogOutput Log);
