using System.Runtime.CompilerServices;
using Microsoft.Win32.SafeHandles;
using Unikraft.Platform.Kvm.Interop;
using Unikraft.Platform.Kvm.Snapshots.Files;

namespace Unikraft.Platform.CrashChild;

/// <summary>The file system of the snapshots of KVM machines, on a disk that cannot read some files.</summary>
internal sealed class UnreadableFileSystem(UnreadableFiles unreadable) : IFileSystem
{
    private readonly HostFileSystem _host = HostFileSystem.Instance;
    private readonly ConditionalWeakTable<DescriptorHandle, string> _paths = [];

    public int MakeDirectory(string path) => _host.MakeDirectory(path);

    public int List(string path, List<string> names) => _host.List(path, names);

    public int Create(string path, out DescriptorHandle file)
    {
        unreadable.Replaced(path);
        return _host.Create(path, out file);
    }

    public int OpenRead(string path, out DescriptorHandle file) => Note(path, _host.OpenRead(path, out file), file);

    public int OpenDirect(string path, out DescriptorHandle file) => Note(path, _host.OpenDirect(path, out file), file);

    public int OpenLocked(string path, out DescriptorHandle file) => _host.OpenLocked(path, out file);

    public int Stat(DescriptorHandle file, out FileStamp stamp) => _host.Stat(file, out stamp);

    public int Read(DescriptorHandle file, Span<byte> buffer, long offset) =>
        _paths.TryGetValue(file, out string? path) && unreadable.Has(path) ? -UnreadableFiles.InputOutput : _host.Read(file, buffer, offset);

    public int Write(DescriptorHandle file, ReadOnlySpan<byte> buffer, long offset) => _host.Write(file, buffer, offset);

    public int WriteBack(DescriptorHandle file, bool isAwaited) => _host.WriteBack(file, isAwaited);

    public int Sync(DescriptorHandle file) => _host.Sync(file);

    public int SyncData(SafeFileHandle file) => _host.SyncData(file);

    public int SyncData(DescriptorHandle file) => _host.SyncData(file);

    public int Rename(string from, string to)
    {
        int result = _host.Rename(from, to);
        if (result >= 0)
        {
            unreadable.Renamed(from, to);
        }

        return result;
    }

    public int Delete(string path)
    {
        unreadable.Replaced(path);
        return _host.Delete(path);
    }

    public int SyncDirectory(string path) => _host.SyncDirectory(path);

    private int Note(string path, int result, DescriptorHandle file)
    {
        if (result >= 0)
        {
            _paths.Add(file, path);
        }

        return result;
    }
}
