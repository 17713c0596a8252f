namespace Unikraft.Platform.Storage;

/// <summary>What a file system says of something that has a name.</summary>
/// <param name="IsDirectory">Whether it is a directory.</param>
/// <param name="IsPlain">Whether it is a file itself, and no link to one and no device.</param>
/// <param name="Length">The length of the file in bytes.</param>
/// <param name="WrittenAt">When it was last written to.</param>
internal readonly record struct FileStatus(bool IsDirectory, bool IsPlain, long Length, DateTime WrittenAt);
