using System.Runtime.InteropServices;
using Microsoft.Win32.SafeHandles;
using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Kvm.Interop;

namespace Unikraft.Platform.Kvm.Snapshots.Files;

/// <summary>Takes the names in directories, and contents without times, to the disk.</summary>
/// <param name="files">The file system.</param>
internal sealed class DirectorySync(IFileSystem files) : IDirectorySync
{
    public void Sync(string path) => Check(files.SyncDirectory(path));

    public void SyncContent(SafeFileHandle file) => Check(files.SyncData(file));

    private static void Check(int result)
    {
        if (result < 0)
        {
            throw new IOException(Marshal.GetPInvokeErrorMessage(-result), -result);
        }
    }
}
