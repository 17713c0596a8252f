using Unikraft.Platform.Hypervisors;

namespace Unikraft.Platform.InMemory;

/// <summary>All that a clone of a machine continues from.</summary>
/// <param name="Configuration">As the machine was made; a clone keeps the arguments of its source.</param>
/// <param name="Guest">The guest between two steps. Nobody steps it: whoever continues from it clones it.</param>
internal sealed record MachineState(MachineConfiguration Configuration, ScriptedGuest Guest)
{
    /// <summary>Whether the guest was entered.</summary>
    public bool IsBooted { get; init; }

    public bool HasReachedMain { get; init; }

    public int InitLevel { get; init; }

    public bool IsShuttingDown { get; init; }

    public int? ExitCode { get; init; }

    /// <summary>What the guest waits for, if it does.</summary>
    public GuestStep.Sleep? Sleep { get; init; }

    /// <summary>What the guest waits for the platform to do, if it does. A clone does not wait for it any more.</summary>
    public GuestRequest? Request { get; init; }

    /// <summary>How its last request ended.</summary>
    public RequestOutcome RequestOutcome { get; init; } = new(Errno: 0);

    public bool IsHanging { get; init; }

    public bool IsWakePending { get; init; }

    /// <summary>The time since boot.</summary>
    public TimeSpan Monotonic { get; init; }

    /// <summary>Input that the guest has not read.</summary>
    public IReadOnlyList<byte> Input { get; init; } = [];

    /// <summary>The beginning of a line that the guest has read.</summary>
    public IReadOnlyList<byte> Line { get; init; } = [];

    /// <summary>The disks that the guest has; not what is on them.</summary>
    public IReadOnlyList<DiskShape> Disks { get; init; } = [];

    /// <summary>How many snapshots the machine builds on.</summary>
    public int Depth { get; init; }
}
