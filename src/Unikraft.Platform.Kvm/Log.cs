using Microsoft.Extensions.Logging;

namespace Unikraft.Platform.Kvm;

/// <summary>The log messages of the backend. Event ids 2000 to 2999.</summary>
internal static partial class Log
{
    [LoggerMessage(2000, LogLevel.Information, "Opened the KVM backend: {Description}")]
    internal static partial void Opened(ILogger logger, string description);

    [LoggerMessage(2001, LogLevel.Debug, "Made machine {Name} with {Vcpus} vCPUs and {MemoryMb} MiB")]
    internal static partial void Booted(ILogger logger, string name, int vcpus, int memoryMb);

    [LoggerMessage(2002, LogLevel.Debug, "Restored machine {Uuid} from a snapshot of depth {Depth}")]
    internal static partial void Restored(ILogger logger, Guid uuid, int depth);

    [LoggerMessage(2003, LogLevel.Warning, "Folding the memory layers of a snapshot failed; loading it is slower than it could be")]
    internal static partial void FoldingFailed(ILogger logger, Exception error);

    [LoggerMessage(2004, LogLevel.Warning, "The warm-up of the KVM backend failed; the first machines may be slow")]
    internal static partial void RehearsalFailed(ILogger logger, Exception error);

    [LoggerMessage(2007, LogLevel.Error, "What an ended machine held could not be given back to the host")]
    internal static partial void ReclaimingFailed(ILogger logger, Exception error);

    [LoggerMessage(2006, LogLevel.Warning, "A snapshot made its machine stand still for {Pause}; at most {Budget} was asked for")]
    internal static partial void PauseBudgetExceeded(ILogger logger, TimeSpan pause, TimeSpan budget);

    [LoggerMessage(2005, LogLevel.Warning, "No machine could be made ready in advance; the next one takes longer")]
    internal static partial void RefillFailed(ILogger logger, Exception error);

    [LoggerMessage(2008, LogLevel.Warning, "Memory for snapshots could not be made ready in advance or given back; snapshots take longer or more room")]
    internal static partial void SheetFailed(ILogger logger, Exception error);

    [LoggerMessage(2010, LogLevel.Warning, "In '{Directory}' a state file cannot be read or a layer file is missing: layers that nothing seems to need are kept")]
    internal static partial void CollectionHeldBack(ILogger logger, string directory);

    [LoggerMessage(2011, LogLevel.Warning, "Files of snapshots that nothing needs could not be removed; that is tried again when the directory is next opened")]
    internal static partial void CollectionFailed(ILogger logger, Exception error);

    [LoggerMessage(2012, LogLevel.Warning, "The state file '{Path}' cannot be read")]
    internal static partial void StateUnreadable(ILogger logger, Exception error, string path);

    [LoggerMessage(2013, LogLevel.Warning, "The names of snapshot files in '{Directory}' could not be taken to the disk; the host does it in its own time")]
    internal static partial void NamesNotSynced(ILogger logger, Exception error, string directory);

    [LoggerMessage(2014, LogLevel.Warning, "No files could be made of the snapshots in the publication log of '{Directory}'; they are safe there, and it is tried again")]
    internal static partial void SettlingFailed(ILogger logger, Exception error, string directory);

    [LoggerMessage(2015, LogLevel.Warning, "No publication log could be made in '{Directory}'; saving snapshots takes longer")]
    internal static partial void LogNotMade(ILogger logger, Exception error, string directory);

    [LoggerMessage(2016, LogLevel.Error, "Snapshot {Id} in the publication log '{Path}' is not as it was written, and is lost")]
    internal static partial void RecordUnreadable(ILogger logger, Exception? error, Guid id, string path);

    [LoggerMessage(2017, LogLevel.Warning, "Memory that was folded could not be written to '{Directory}' in advance; a snapshot takes longer for it")]
    internal static partial void FoldNotKept(ILogger logger, Exception error, string directory);
}
