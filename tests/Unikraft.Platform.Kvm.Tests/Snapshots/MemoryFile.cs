using Microsoft.Win32.SafeHandles;
using Unikraft.Platform.Kvm.Interop;
using Unikraft.Platform.Kvm.Snapshots.Files;

namespace Unikraft.Platform.Kvm.Tests.Snapshots;

/// <summary>One file in memory, to be read.</summary>
internal sealed class MemoryFile(byte[] content) : IFileSystem
{
    internal StoredFile Open() => new(this, new DescriptorHandle(-1), "memory");

    public int Stat(DescriptorHandle file, out FileStamp stamp)
    {
        stamp = new FileStamp(content.Length, 1, 1, 1, 1);
        return 0;
    }

    public int Read(DescriptorHandle file, Span<byte> buffer, long offset)
    {
        int length = (int)Math.Clamp(content.Length - offset, 0, buffer.Length);
        content.AsSpan((int)Math.Min(offset, content.Length), length).CopyTo(buffer);
        return length;
    }

    public int MakeDirectory(string path) => throw new NotSupportedException();

    public int List(string path, List<string> names) => throw new NotSupportedException();

    public int Create(string path, out DescriptorHandle file) => throw new NotSupportedException();

    public int OpenRead(string path, out DescriptorHandle file)
    {
        file = new DescriptorHandle(-1);
        return 0;
    }

    public int OpenDirect(string path, out DescriptorHandle file) => OpenRead(path, out file);

    public int OpenLocked(string path, out DescriptorHandle file) => throw new NotSupportedException();

    public int Write(DescriptorHandle file, ReadOnlySpan<byte> buffer, long offset) => throw new NotSupportedException();

    public int WriteBack(DescriptorHandle file, bool isAwaited) => throw new NotSupportedException();

    public int Sync(DescriptorHandle file) => throw new NotSupportedException();

    public int SyncData(SafeFileHandle file) => throw new NotSupportedException();

    public int SyncData(DescriptorHandle file) => throw new NotSupportedException();

    public int Rename(string from, string to) => throw new NotSupportedException();

    public int Delete(string path) => throw new NotSupportedException();

    public int SyncDirectory(string path) => throw new NotSupportedException();
}
