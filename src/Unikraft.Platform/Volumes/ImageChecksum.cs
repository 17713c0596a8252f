namespace Unikraft.Platform.Volumes;

/// <summary>An image that does not change any more.</summary>
/// <param name="Name">Its name in the directory of images.</param>
/// <param name="Length">The length in bytes.</param>
/// <param name="Sha256">The SHA-256 of the file, in lower-case hexadecimal digits.</param>
internal sealed record ImageChecksum(string Name, long Length, string Sha256);
