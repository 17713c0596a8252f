namespace Unikraft.Platform.Instances;

/// <summary>What the platform does when a guest asks for it from inside.</summary>
internal interface IGuestRequests
{
    /// <summary>Turns the instance into a template.</summary>
    /// <param name="instance">The instance.</param>
    /// <param name="run">The run whose guest has asked.</param>
    Task ConvertAsync(InstanceController instance, InstanceRun run);

    /// <summary>Creates an instance that continues from the same state, and starts it.</summary>
    /// <param name="instance">The instance.</param>
    /// <param name="run">The run whose guest has asked.</param>
    /// <returns>The UUID of the new instance.</returns>
    Task<Guid> ForkAsync(InstanceController instance, InstanceRun run);
}
