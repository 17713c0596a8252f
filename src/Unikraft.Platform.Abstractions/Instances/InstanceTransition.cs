namespace Unikraft.Platform;

/// <summary>One change of the state of an instance.</summary>
/// <param name="Number">Counts the transitions of the instance from 1, without a gap.</param>
/// <param name="At">When it happened, by the clock of the platform.</param>
/// <param name="Uuid">The UUID of the instance.</param>
/// <param name="Name">The name of the instance.</param>
/// <param name="From">The state before; <see langword="null"/> for the creation of the instance.</param>
/// <param name="To">The state after; <see langword="null"/> when the instance is gone: deleted, removed by its autokill policy, or a template.</param>
/// <param name="StopReason">Where the shutdown came from, as far as it is known, when <paramref name="To"/> is a state after a stop was begun.</param>
public sealed record InstanceTransition(
    long Number,
    DateTimeOffset At,
    Guid Uuid,
    string Name,
    InstanceState? From,
    InstanceState? To,
    StopReason? StopReason);
