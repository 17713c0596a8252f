using Unikraft.Platform.Resources;

namespace Unikraft.Platform.Instances;

/// <summary>Changes of the properties of one instance, those included that wait for its next boot.</summary>
/// <remarks>Guarded by the lock of the instance.</remarks>
/// <param name="status">The instance.</param>
/// <param name="connections">Its connections.</param>
/// <param name="hypervisor">What it could boot on.</param>
internal sealed class InstanceUpdates(InstanceStatus status, ConnectionGate connections, HypervisorInfo hypervisor)
{
    /// <summary>Changes properties, all or none.</summary>
    /// <returns>False when the instance is gone.</returns>
    public bool TryPatch(IReadOnlyList<PatchOperation> operations)
    {
        PatchOperation[] metadata = [.. operations.Where(ResourceMetadata.Concerns)];
        PatchOperation[] boot = [.. operations.Where(operation => !ResourceMetadata.Concerns(operation) && operation is not PatchOperation.SetScaleToZero)];
        lock (status.Sync)
        {
            if (status.IsClosed)
            {
                return false;
            }

            // Nothing is changed before everything is found to be allowed.
            _ = status.Configuration.Apply([.. status.Updates, .. boot], hypervisor);
            InstancePolicies policies = status.Policies.Apply(operations);
            if (!status.Retention.TryPatch(metadata))
            {
                return false;
            }

            status.Updates = status.Updates.AddRange(boot);
            Apply();
            if (policies != status.Policies)
            {
                status.Policies = policies;
                connections.WatchIdleness();
            }

            status.Changed?.Invoke();
            return true;
        }
    }

    /// <summary>Changes what waits to be changed, if the next start boots the image: what continues from a snapshot is as it is. Under the lock.</summary>
    public void Apply()
    {
        if (status is { Run: null, HasSnapshot: false, Updates.IsEmpty: false })
        {
            status.Configuration = status.Configuration.After(status.Updates);
            status.Updates = [];
        }
    }
}
