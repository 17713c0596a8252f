using System.Diagnostics;

namespace Unikraft.Platform.Instances;

/// <summary>A restart sequence under way. Guarded by the lock of the instance.</summary>
internal sealed class RestartSequence(int attempt)
{
    /// <summary>Counts the restarts of the sequence, from 1.</summary>
    public int Attempt { get; } = attempt;

    /// <summary>When the next restart occurs; <see langword="null"/> when it is not being waited for.</summary>
    public DateTimeOffset? NextAt { get; set; }

    /// <summary>When it was decided to wait until <see cref="NextAt"/>, as a timestamp: the clock of the host may jump meanwhile.</summary>
    public long ScheduledAt { get; set; }

    /// <summary>How long the next restart is waited for, from <see cref="ScheduledAt"/> on.</summary>
    public TimeSpan Delay { get; set; }

    /// <summary>Whether the restart is due or waited for, and has not begun.</summary>
    public bool IsPending { get; set; } = true;

    /// <summary>The trace of the start that comes before, if there is one: of the run that has ended, or of a restart that has failed.</summary>
    public ActivityContext? Follows { get; set; }

    public ITimer? Timer { get; set; }
}
