using Microsoft.Extensions.Logging;

namespace Unikraft.Platform.Diagnostics;

/// <summary>
/// Everything the platform logs. Event ids 1000 to 1099: the platform; 1100 to 1199: instances; 1200 to 1299: checkpoints; 1300 to 1399: templates.
/// </summary>
internal static partial class Log
{
    [LoggerMessage(1000, LogLevel.Information, "Platform ready on {Hypervisor}: {Description}")]
    public static partial void PlatformReady(this ILogger logger, string hypervisor, string description);

    [LoggerMessage(1001, LogLevel.Information, "Stopping all {Count} instances")]
    public static partial void StoppingAll(this ILogger logger, int count);

    [LoggerMessage(1002, LogLevel.Warning, "No more time for stopping: force-stopping what still runs")]
    public static partial void ForceStoppingAll(this ILogger logger);

    [LoggerMessage(1003, LogLevel.Information, "Autokill: {Kind} {Name} ({Uuid}) removed after {Time} without use")]
    public static partial void Autokilled(this ILogger logger, string kind, string name, Guid uuid, TimeSpan time);

    [LoggerMessage(1004, LogLevel.Error, "Freeing what {Kind} {Name} ({Uuid}) held after its autokill failed")]
    public static partial void AutokillReleaseFailed(this ILogger logger, Exception error, string kind, string name, Guid uuid);

    [LoggerMessage(1100, LogLevel.Information, "Instance {Name} ({Uuid}) created from {Source}")]
    public static partial void InstanceCreated(this ILogger logger, string name, Guid uuid, string source);

    [LoggerMessage(1101, LogLevel.Information, "Instance {Name} ({Uuid}) running after {BootTime}")]
    public static partial void InstanceRunning(this ILogger logger, string name, Guid uuid, TimeSpan bootTime);

    [LoggerMessage(1102, LogLevel.Warning, "Instance {Name} ({Uuid}) failed to start")]
    public static partial void InstanceStartFailed(this ILogger logger, Exception error, string name, Guid uuid);

    [LoggerMessage(1103, LogLevel.Information, "Instance {Name} ({Uuid}) stopped: reason {StopReason}, exit code {ExitCode}, stop code {StopCode}")]
    public static partial void InstanceStopped(
        this ILogger logger,
        string name,
        Guid uuid,
        string stopReason,
        int? exitCode,
        StopCode? stopCode);

    [LoggerMessage(1104, LogLevel.Warning, "Instance {Name} ({Uuid}) crashed: reason {StopReason}, {StopCode}, {Fault}")]
    public static partial void InstanceCrashed(
        this ILogger logger,
        string name,
        Guid uuid,
        string stopReason,
        string? stopCode,
        GuestFault? fault);

    [LoggerMessage(1105, LogLevel.Error, "The machine of instance {Name} ({Uuid}) failed")]
    public static partial void MachineFailed(this ILogger logger, Exception error, string name, Guid uuid);

    [LoggerMessage(1106, LogLevel.Warning, "Instance {Name} ({Uuid}) did not shut down within its grace period: its app is killed")]
    public static partial void KillingApp(this ILogger logger, string name, Guid uuid);

    [LoggerMessage(1107, LogLevel.Warning, "The kernel of instance {Name} ({Uuid}) did not kill its app: the machine is killed")]
    public static partial void KillingMachine(this ILogger logger, string name, Guid uuid);

    [LoggerMessage(1108, LogLevel.Information, "Instance {Name} ({Uuid}) restarts after {Delay}, attempt {Attempt}")]
    public static partial void RestartScheduled(this ILogger logger, string name, Guid uuid, TimeSpan delay, int attempt);

    [LoggerMessage(1109, LogLevel.Error, "Freeing the machine of instance {Name} ({Uuid}) failed")]
    public static partial void TeardownFailed(this ILogger logger, Exception error, string name, Guid uuid);

    [LoggerMessage(1110, LogLevel.Information, "Instance {Name} ({Uuid}) deleted")]
    public static partial void InstanceDeleted(this ILogger logger, string name, Guid uuid);

    [LoggerMessage(1112, LogLevel.Warning, "Instance {Name} ({Uuid}) could not be scaled to zero, and goes on")]
    public static partial void ScaleToZeroFailed(this ILogger logger, Exception error, string name, Guid uuid);

    [LoggerMessage(1113, LogLevel.Information, "Instance {Name} ({Uuid}) stopped, and is deleted as its features say")]
    public static partial void DeletedOnStop(this ILogger logger, string name, Guid uuid);

    [LoggerMessage(1111, LogLevel.Warning, "The guest of instance {Name} ({Uuid}) made the request '{Request}', which failed")]
    public static partial void GuestRequestRefused(this ILogger logger, Exception error, string name, Guid uuid, string request);

    [LoggerMessage(1200, LogLevel.Information, "Checkpoint {Name} ({Uuid}) of instance {Source} ready: {StoredBytes} bytes, pause {Pause}")]
    public static partial void CheckpointReady(
        this ILogger logger,
        string name,
        Guid uuid,
        string source,
        long storedBytes,
        TimeSpan? pause);

    [LoggerMessage(1201, LogLevel.Warning, "Checkpoint {Name} ({Uuid}) of instance {Source} failed")]
    public static partial void CheckpointFailed(this ILogger logger, Exception error, string name, Guid uuid, string source);

    [LoggerMessage(1202, LogLevel.Information, "Checkpoint {Name} ({Uuid}) deleted")]
    public static partial void CheckpointDeleted(this ILogger logger, string name, Guid uuid);

    [LoggerMessage(1310, LogLevel.Information, "Volume {Name} ({Uuid}) created")]
    public static partial void VolumeCreated(this ILogger logger, string name, Guid uuid);

    [LoggerMessage(1311, LogLevel.Debug, "Volume {Name} ({Uuid}) deleted")]
    public static partial void VolumeDeleted(this ILogger logger, string name, Guid uuid);

    [LoggerMessage(1312, LogLevel.Warning, "Volume {Name} ({Uuid}) of instance {Instance} could not do what was asked of it")]
    public static partial void VolumeFailed(this ILogger logger, Exception error, string name, Guid uuid, string instance);

    [LoggerMessage(1313, LogLevel.Error, "Volume {Name} ({Uuid}) cannot be used; no image is removed until it can, or is deleted")]
    public static partial void VolumeUnusable(this ILogger logger, Exception error, string name, Guid uuid);

    [LoggerMessage(1314, LogLevel.Warning, "The file or directory '{Path}' of a volume could not be deleted")]
    public static partial void ImageNotDeleted(this ILogger logger, Exception error, string path);

    [LoggerMessage(1316, LogLevel.Debug, "Made one image of {Count} of volume {Name} ({Uuid})")]
    public static partial void VolumeFolded(this ILogger logger, string name, Guid uuid, int count);

    [LoggerMessage(1315, LogLevel.Warning, "Work on a volume in the background failed")]
    public static partial void VolumeWorkFailed(this ILogger logger, Exception error);

    [LoggerMessage(1300, LogLevel.Information, "Instance {Name} ({Uuid}) became a template: {StoredBytes} bytes")]
    public static partial void TemplateReady(this ILogger logger, string name, Guid uuid, long storedBytes);

    [LoggerMessage(1301, LogLevel.Information, "Template {Name} ({Uuid}) deleted")]
    public static partial void TemplateDeleted(this ILogger logger, string name, Guid uuid);
}
