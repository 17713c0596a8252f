namespace Unikraft.Platform.Contracts.Modeling;

/// <summary>An instance. It is never seen starting or stopping.</summary>
public sealed class ModelInstance : ModelResource
{
    /// <summary>What its next boot of the image is of.</summary>
    public ModelBoot Boot { get; set; } = ModelBoot.OfCounter;

    /// <summary>Changes of that which wait for a start that boots the image.</summary>
    public IReadOnlyList<PatchOperation> Updates { get; set; } = [];

    /// <summary>Whether its guest crashes as soon as it runs.</summary>
    public bool Crashes => Boot.Crashes;

    /// <summary>Something that it has written to its console, and that its log holds from then on.</summary>
    public string Logged { get; set; } = "";

    /// <summary>Its restart policy.</summary>
    public RestartPolicy Policy { get; init; }

    /// <summary>Whether it is deleted when it stops.</summary>
    public bool DeleteOnStop { get; init; }

    /// <summary>Whether and how it goes to standby.</summary>
    public ScaleToZero? ScalesToZero { get; set; }

    /// <summary>Its state.</summary>
    public InstanceState State { get; set; }

    /// <summary>What it has been in since its last start, and therefore is not waited for.</summary>
    public ISet<InstanceState> Passed { get; } = new HashSet<InstanceState> { InstanceState.Stopped };

    /// <summary>Whether it holds a machine.</summary>
    public bool IsUp => State is InstanceState.Running or InstanceState.Draining;

    /// <summary>What its guest has in memory, while it is up.</summary>
    public ModelMemory Live { get; set; } = ModelMemory.Fresh;

    /// <summary>What the next start continues from; <see langword="null"/> for the image.</summary>
    public ModelSnapshot? Snapshot { get; set; }

    /// <summary>What it has continued from in the run under way, if that outlives the host.</summary>
    public ModelSnapshot? Resumed { get; set; }

    /// <summary>Whether it is stopped and its next start boots the image.</summary>
    public bool IsFree => State == InstanceState.Stopped && Snapshot is null;

    /// <summary>Its volumes, those that it will have included.</summary>
    public IList<ModelMount> Mounts { get; } = [];

    /// <summary>How often it was started.</summary>
    public int Starts { get; set; }

    /// <summary>How often its policy started it.</summary>
    public int Restarts { get; set; }

    /// <summary>How it ended last.</summary>
    public string? StopMask { get; set; }

    /// <summary>How many connections it has.</summary>
    public int Connections { get; set; }

    /// <summary>Since when it has been up.</summary>
    public TimeSpan RunningSince { get; set; }

    /// <summary>Since when it has had no connection.</summary>
    public TimeSpan? IdleSince { get; set; }

    /// <summary>When it goes to standby.</summary>
    public TimeSpan? IdleDue => State == InstanceState.Running && Connections == 0 ? IdleSince + ScalesToZero?.CooldownTime : null;

    /// <summary>When it is stopped, whatever its connections do.</summary>
    public TimeSpan? DrainDue { get; set; }

    /// <summary>The restart sequence.</summary>
    public int? RestartAttempt { get; set; }

    /// <summary>When the next restart occurs.</summary>
    public TimeSpan? RestartDue { get; set; }

    /// <summary>The checkpoints in its lineage.</summary>
    public IReadOnlyList<string> History { get; set; } = [];
}
