using System.Runtime.InteropServices;

namespace Unikraft.Platform.Kvm.Snapshots.Files;

/// <summary>What the host knows of a file. When it is the same as before, so is the content, as far as ordinary writes go.</summary>
/// <param name="Length">The length in bytes.</param>
/// <param name="Inode">The number of the file.</param>
/// <param name="Device">The number of the file system.</param>
/// <param name="ChangeSeconds">When content or name last changed, in seconds since 1970.</param>
/// <param name="ChangeNanoseconds">The nanoseconds to that.</param>
[StructLayout(LayoutKind.Auto)]
internal readonly record struct FileStamp(long Length, ulong Inode, ulong Device, long ChangeSeconds, uint ChangeNanoseconds);
