using System.Runtime.InteropServices;
using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Kvm.Interop;

namespace Unikraft.Platform.Kvm.Snapshots.Files;

/// <summary>Takes the names in directories to the disk.</summary>
/// <param name="files">The file system.</param>
internal sealed class DirectorySync(IFileSystem files) : IDirectorySync
{
    public void Sync(string path)
    {
        int result = files.SyncDirectory(path);
        if (result < 0)
        {
            throw new IOException(Marshal.GetPInvokeErrorMessage(-result), -result);
        }
    }
}
