using Microsoft.Extensions.Logging.Abstractions;
using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Kvm.Snapshots;
using Unikraft.Platform.Kvm.Snapshots.Files;
using Unikraft.Platform.Kvm.Tests.Testing;

namespace Unikraft.Platform.Kvm.Tests.Snapshots;

/// <summary>A test with a directory of snapshots on a file system that can fail.</summary>
public abstract class SnapshotFilesTest : IDisposable
{
    private protected TestDirectory Folder { get; } = new();

    private protected FaultyFileSystem FileSystem { get; } = new();

    public void Dispose()
    {
        Dispose(disposing: true);
        GC.SuppressFinalize(this);
    }

    private protected async Task<SnapshotDirectory> OpenDirectoryAsync(string? path = null) =>
        (SnapshotDirectory)await new KvmSnapshotFiles(FileSystem, NullLogger.Instance).OpenDirectoryAsync(path ?? Folder.Path).Guarded();

    /// <summary>Saves a snapshot under a new name.</summary>
    private protected static async Task<Guid> SaveAsync(SnapshotDirectory directory, KvmSnapshot snapshot)
    {
        Guid id = Guid.NewGuid();
        await directory.SaveAsync(id, snapshot).Guarded();
        return id;
    }

    private protected static async Task<KvmSnapshot> OpenAsync(SnapshotDirectory directory, Guid id) =>
        (KvmSnapshot)await directory.OpenAsync(id).Guarded();

    /// <summary>The layers that a snapshot needs, in the order in which they are saved.</summary>
    private protected static IReadOnlyList<Guid> LayersOf(KvmSnapshot snapshot)
    {
        using Kvm.Memory.PageMap map = snapshot.ShareMemory();
        return [.. map.Layers.Select(layer => layer.Id)];
    }

    protected virtual void Dispose(bool disposing)
    {
        if (disposing)
        {
            Folder.Dispose();
        }
    }
}
