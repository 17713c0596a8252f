using System.Collections.Immutable;
using Unikraft.Platform.Checkpoints;

namespace Unikraft.Platform.Instances;

/// <summary>What a new instance is made from.</summary>
/// <param name="Configuration">Image, size, arguments and environment.</param>
/// <param name="Snapshot">The snapshot that the first start continues from; the instance owns the hold.</param>
/// <param name="Origin">The source, when it was not made from an image alone.</param>
/// <param name="History">The checkpoints that it descends from, newest first.</param>
internal sealed record Blueprint(
    InstanceConfiguration Configuration,
    SnapshotReference? Snapshot,
    InstanceOrigin? Origin,
    ImmutableList<CheckpointReference> History);
