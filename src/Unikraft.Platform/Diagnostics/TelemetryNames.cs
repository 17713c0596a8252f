namespace Unikraft.Platform.Diagnostics;

/// <summary>The names of the meter, the activity source, and what they report.</summary>
internal static class TelemetryNames
{
    /// <summary>Of the meter and of the activity source.</summary>
    public const string Source = "Unikraft.Platform";

    public const string Instances = "unikraft.instances";
    public const string InstanceStartDuration = "unikraft.instance.start.duration";
    public const string InstanceWakeupDuration = "unikraft.instance.wakeup.duration";
    public const string InstanceStops = "unikraft.instance.stops";
    public const string InstanceRestarts = "unikraft.instance.restarts";
    public const string Checkpoints = "unikraft.checkpoints";
    public const string Templates = "unikraft.templates";
    public const string CheckpointPause = "unikraft.checkpoint.pause";
    public const string Autokills = "unikraft.autokills";

    public const string CreateActivity = "instance.create";
    public const string StartActivity = "instance.start";
    public const string StopActivity = "instance.stop";
    public const string CaptureActivity = "instance.capture";
    public const string SuspendActivity = "instance.suspend";
    public const string BranchActivity = "instance.branch";
    public const string CheckpointActivity = "checkpoint.create";
    public const string LoadActivity = "checkpoint.load";
    public const string ConvertActivity = "template.create";
    public const string CloneActivity = "template.clone";

    public const string StateTag = "unikraft.instance.state";
    public const string StopReasonTag = "unikraft.instance.stop_reason";
    public const string NameTag = "unikraft.instance.name";
    public const string UuidTag = "unikraft.instance.uuid";
    public const string StartKindTag = "unikraft.instance.start.kind";
    public const string KindTag = "unikraft.resource.kind";
    public const string ErrorTag = "error.type";
    public const string BootStart = "boot";
    public const string RestoreStart = "restore";
}
