using Unikraft.Platform.Resources;
using Unikraft.Platform.Volumes;

namespace Unikraft.Platform.Instances;

/// <summary>Changes of the properties of one instance, those included that wait for its next boot.</summary>
/// <remarks>Guarded by the lock of the instance.</remarks>
/// <param name="status">The instance.</param>
/// <param name="connections">Its connections.</param>
/// <param name="volumes">What knows its ROMs.</param>
/// <param name="hypervisor">What it could boot on.</param>
internal sealed class InstanceUpdates(InstanceStatus status, ConnectionGate connections, VolumeCatalog volumes, HypervisorInfo hypervisor)
{
    /// <summary>Changes properties, all or none.</summary>
    /// <returns>False when the instance is gone.</returns>
    public bool TryPatch(IReadOnlyList<PatchOperation> operations)
    {
        PatchOperation[] metadata = [.. operations.Where(ResourceMetadata.Concerns)];
        PatchOperation[] boot =
        [
            .. operations.Where(static operation =>
                !ResourceMetadata.Concerns(operation)
                && !Annotations.IsOfAnnotations(operation)
                && operation is not (PatchOperation.SetScaleToZero or PatchOperation.SetServices)),
        ];
        lock (status.Sync)
        {
            if (status.IsClosed)
            {
                return false;
            }

            // Nothing is changed before everything is found to be allowed.
            _ = status.Configuration.Apply([.. status.Updates, .. boot], hypervisor);
            InstancePolicies policies = status.Policies.Apply(operations);
            IReadOnlyDictionary<string, string> annotations = status.Configuration.Annotations.After(operations);
            Action? undoRoms = boot.Any(RomPatch.IsOfRoms) ? volumes.ChangeRoms(status.Identity.Uuid, boot) : null;
            bool isDone = false;
            try
            {
                isDone = status.Retention.TryPatch(metadata);
            }
            finally
            {
                if (!isDone)
                {
                    undoRoms?.Invoke();
                }
            }

            if (!isDone)
            {
                return false;
            }

            status.Configuration = status.Configuration with { Annotations = annotations };
            status.Updates = status.Updates.AddRange(boot);
            Apply();
            bool isIdleOtherwise = policies.ScaleToZero != status.Policies.ScaleToZero;
            status.Policies = policies;
            if (isIdleOtherwise)
            {
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
            volumes.ApplyRoms(status.Identity.Uuid);
        }
    }
}
