using Microsoft.Win32.SafeHandles;
using Unikraft.Platform.Kvm.Interop;

namespace Unikraft.Platform.Kvm.Snapshots.Files;

/// <summary>A file system that leaves it to the host when it takes to the disk what was written: nothing is lost with the process, and nobody waits for a sync.</summary>
/// <param name="files">The file system.</param>
internal sealed class UnsyncedFileSystem(IFileSystem files) : IFileSystem
{
    public int MakeDirectory(string path) => files.MakeDirectory(path);

    public int List(string path, List<string> names) => files.List(path, names);

    public int Create(string path, out DescriptorHandle file) => files.Create(path, out file);

    public int OpenRead(string path, out DescriptorHandle file) => files.OpenRead(path, out file);

    public int OpenDirect(string path, out DescriptorHandle file) => files.OpenDirect(path, out file);

    public int OpenLocked(string path, out DescriptorHandle file) => files.OpenLocked(path, out file);

    public int Stat(DescriptorHandle file, out FileStamp stamp) => files.Stat(file, out stamp);

    public int Read(DescriptorHandle file, Span<byte> buffer, long offset) => files.Read(file, buffer, offset);

    public int Write(DescriptorHandle file, ReadOnlySpan<byte> buffer, long offset) => files.Write(file, buffer, offset);

    public int WriteBack(DescriptorHandle file, bool isAwaited) => 0;

    public int Sync(DescriptorHandle file) => 0;

    public int SyncData(SafeFileHandle file) => 0;

    public int SyncData(DescriptorHandle file) => 0;

    public int Rename(string from, string to) => files.Rename(from, to);

    public int Delete(string path) => files.Delete(path);

    public int SyncDirectory(string path) => 0;
}
