namespace Unikraft.Platform;

/// <summary>A file of the host that holds a disk.</summary>
/// <param name="Path">The file.</param>
/// <param name="Format">Its format.</param>
public sealed record DiskImageFile(string Path, DiskImageFormat Format);
