using Microsoft.Extensions.Logging.Abstractions;
using Unikraft.Platform.Kvm;
using Unikraft.Platform.Kvm.Interop;
using Unikraft.Platform.Kvm.Machines;
using Unikraft.Platform.Kvm.Snapshots.Files;
using Unikraft.Platform.Storage;

namespace Unikraft.Platform.CrashChild;

/// <summary>A platform with real machines whose disk cannot read some files.</summary>
public static class UnreadablePlatform
{
    /// <summary>Opens a data directory.</summary>
    /// <param name="directory">The data directory.</param>
    /// <param name="paths">The files that cannot be read.</param>
    public static IUnikraftPlatform Open(string directory, params IEnumerable<string> paths)
    {
        UnreadableFiles unreadable = new(paths);
        UnreadableFileLayer files = new(new HostFileLayer(new DirectorySync(HostFileSystem.Instance)), unreadable);
        return new UnikraftPlatform(
            new PlatformOptions { DataDirectory = directory, MinFreeDiskBytes = 0 },
            TimeProvider.System,
            NullLoggerFactory.Instance,
            context => new KvmHypervisor(new KvmOptions { WarmUp = false, ReadyMachines = 0 }, context, files: new UnreadableFileSystem(unreadable)),
            files,
            files,
            files);
    }
}
