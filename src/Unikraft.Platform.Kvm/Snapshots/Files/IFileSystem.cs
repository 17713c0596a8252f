using Microsoft.Win32.SafeHandles;
using Unikraft.Platform.Kvm.Interop;

namespace Unikraft.Platform.Kvm.Snapshots.Files;

/// <summary>
/// Every call by which snapshot files touch the disk, so that tests can make each of them fail. The results are those of the kernel: negative ones are
/// error numbers.
/// </summary>
internal interface IFileSystem
{
    int MakeDirectory(string path);

    /// <summary>Adds the names of the files in a directory to a list.</summary>
    int List(string path, List<string> names);

    /// <summary>Makes a file, or empties the one that is there, to write to.</summary>
    int Create(string path, out DescriptorHandle file);

    int OpenRead(string path, out DescriptorHandle file);

    /// <summary>
    /// Opens a file to write and read in whole blocks of 4096 bytes from and to memory that is aligned like them: past the host's cache where it can, for a page of a guest is not
    /// needed there, and is on its way to the disk a copy earlier. What the cache has of it takes time to drop whenever it is written over.
    /// </summary>
    int OpenDirect(string path, out DescriptorHandle file);

    /// <summary>Opens a file, which is made if need be, and locks it until it is closed.</summary>
    int OpenLocked(string path, out DescriptorHandle file);

    int Stat(DescriptorHandle file, out FileStamp stamp);

    /// <returns>The number of bytes read, possibly fewer than asked for; 0 behind the end.</returns>
    int Read(DescriptorHandle file, Span<byte> buffer, long offset);

    /// <returns>The number of bytes written, possibly fewer than asked for.</returns>
    int Write(DescriptorHandle file, ReadOnlySpan<byte> buffer, long offset);

    /// <summary>
    /// Has the host begin to write to the disk what it has of a file. It promises nothing: what is written before it is synced takes no time then, and several files that
    /// were are synced in one go.
    /// </summary>
    /// <param name="file">The file.</param>
    /// <param name="isAwaited">Whether to wait until that is done.</param>
    int WriteBack(DescriptorHandle file, bool isAwaited);

    /// <summary>Returns when the file is on the disk.</summary>
    int Sync(DescriptorHandle file);

    /// <summary>Returns when the content of a file is on the disk, and what else is needed to read it; times may be lost.</summary>
    int SyncData(SafeFileHandle file);

    /// <inheritdoc cref="SyncData(SafeFileHandle)"/>
    int SyncData(DescriptorHandle file);

    /// <summary>Renames a file, in place of one that has the name already.</summary>
    int Rename(string from, string to);

    int Delete(string path);

    /// <summary>Returns when the names in a directory are on the disk.</summary>
    int SyncDirectory(string path);
}
