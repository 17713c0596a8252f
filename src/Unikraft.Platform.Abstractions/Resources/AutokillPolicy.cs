namespace Unikraft.Platform;

/// <summary>Has a resource removed when it was not used for a time.</summary>
/// <remarks>
/// The time of a checkpoint counts from its last load, that of a template from its last clone, and before the first one from the moment at which it was
/// ready or converted. The time of an instance counts from its last stop, from its last start in vain, or from its creation; an instance that is not stopped, or waits for
/// a restart by its policy, is in use. A resource with a delete lock is passed over until the lock is removed, and a load or start under way is never
/// disturbed.
/// </remarks>
/// <param name="Time">The time, in the API <c>time_ms</c>: 1 ms to 3650 days, or <see cref="TimeSpan.Zero"/> for never, which is the same as no policy.</param>
public sealed record AutokillPolicy(TimeSpan Time);
