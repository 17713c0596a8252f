namespace Unikraft.Platform;

/// <summary>Describes a checkpoint to take.</summary>
public sealed record CreateCheckpointRequest
{
    /// <summary>The instance to take it from: running, stopped or in standby. A running one goes on running.</summary>
    public required NameOrUuid From { get; init; }

    /// <summary>The name, by the rules of instance names. Default: the name of the source with five random characters behind it.</summary>
    public string? Name { get; init; }

    /// <summary>
    /// How the snapshot of a running source is taken. Default: as <see cref="SnapshotOptions"/> says. A call that waits for pending snapshots returns when it
    /// is its turn.
    /// </summary>
    public SnapshotOptions? Snapshot { get; init; }

    /// <summary>
    /// How long to wait for the checkpoint to be <see cref="CheckpointState.Ready"/>: in the API <c>timeout_s</c>. 0 to 49 days.
    /// Default: <see langword="null"/>. <see langword="null"/> and 0 do not wait; <see cref="Timeout.InfiniteTimeSpan"/> waits for ever.
    /// </summary>
    public TimeSpan? WaitTimeout { get; init; }

    /// <summary>Tags: up to 16, each of 1 to 256 letters, digits and <c>- + _ . : =</c>. Repeated ones count once. Default: none.</summary>
    public IReadOnlyList<string>? Tags { get; init; }

    /// <summary>Whether deletion is refused. Default: false.</summary>
    public bool DeleteLock { get; init; }

    /// <summary>When the checkpoint is removed for want of use. Default: <see langword="null"/>, never. Its range is that of <see cref="AutokillPolicy"/>.</summary>
    public AutokillPolicy? Autokill { get; init; }
}
