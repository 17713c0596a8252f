using System.Collections.Immutable;
using Unikraft.Platform.Checkpoints;
using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Resources;

namespace Unikraft.Platform.Instances;

/// <summary>What a clone of an instance is made from, as it was at one moment.</summary>
/// <param name="Identity">The instance.</param>
/// <param name="Configuration">What the clone inherits.</param>
/// <param name="History">The checkpoints in the lineage of the instance, newest first.</param>
/// <param name="Machine">The machine to capture, when the instance runs.</param>
/// <param name="Snapshot">A hold on the snapshot of a stopped instance, if it has one. Else a clone boots the image.</param>
internal sealed record CloneSource(
    ResourceIdentity Identity,
    InstanceConfiguration Configuration,
    ImmutableList<CheckpointReference> History,
    IVirtualMachine? Machine,
    SnapshotReference? Snapshot);
