using Microsoft.Extensions.Logging;

namespace Unikraft.Platform.Diagnostics;

/// <summary>What a data directory logs: event ids 1400 to 1499.</summary>
/// <remarks>Not another part of <see cref="Log"/>: the generator takes the parts of a class in any order, and no two builds would be the same.</remarks>
internal static partial class StorageLog
{
    [LoggerMessage(1400, LogLevel.Information, "Data directory {Path}: {Instances} instances, {Checkpoints} checkpoints, {Templates} templates")]
    public static partial void DataRecovered(this ILogger logger, string path, int instances, int checkpoints, int templates);

    [LoggerMessage(1401, LogLevel.Error, "The file {Path} {Damage}")]
    public static partial void DamageFound(this ILogger logger, string path, string damage);

    [LoggerMessage(1402, LogLevel.Warning, "A change of {Bytes} bytes that was being written to {Path} when the process or the host ended was dropped")]
    public static partial void TornChangeDropped(this ILogger logger, long bytes, string path);

    [LoggerMessage(1403, LogLevel.Warning, "Nothing is removed from {Path}, because damage makes it doubtful what is needed")]
    public static partial void DataCollectionHeldBack(this ILogger logger, string path);

    [LoggerMessage(1404, LogLevel.Error, "Changes could not be written to {Path}; they are tried again")]
    public static partial void DataNotWritten(this ILogger logger, Exception error, string path);

    [LoggerMessage(1405, LogLevel.Warning, "Console output could not be written to {Path}; it is tried again")]
    public static partial void LogsNotWritten(this ILogger logger, Exception error, string path);

    [LoggerMessage(1406, LogLevel.Warning, "The snapshot {Snapshot} could not be removed from {Path}; it goes at the next start")]
    public static partial void SnapshotNotDeleted(this ILogger logger, Exception error, Guid snapshot, string path);

    [LoggerMessage(1407, LogLevel.Warning, "The {Resource} cannot be used")]
    public static partial void ResourceDamaged(this ILogger logger, Exception error, string resource);

    [LoggerMessage(1410, LogLevel.Warning, "Instance {Name} ({Uuid}) boots its image at its next start: it ran when the host ended, and has written to its volumes since its snapshot")]
    public static partial void SnapshotOutdated(this ILogger logger, string name, Guid uuid);
}
