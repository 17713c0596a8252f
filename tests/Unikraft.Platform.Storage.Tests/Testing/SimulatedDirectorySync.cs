using Microsoft.Win32.SafeHandles;
using Unikraft.Platform.Hypervisors;

namespace Unikraft.Platform.Storage.Tests.Testing;

/// <summary>Takes the names in a directory of a simulated disk to it.</summary>
internal sealed class SimulatedDirectorySync(SimulatedDisk disk) : IDirectorySync
{
    public void Sync(string path) => disk.SyncDirectory(path);

    public void SyncContent(SafeFileHandle file) => throw new NotSupportedException("A simulated disk has no handles.");
}
