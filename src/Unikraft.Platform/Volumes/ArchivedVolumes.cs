namespace Unikraft.Platform.Volumes;

/// <summary>The volumes of a checkpoint as an archive has them, with the files that were made for it alone.</summary>
internal sealed class ArchivedVolumes(IReadOnlyList<ArchivedVolume> volumes, Func<string, Stream> open, Action end) : IDisposable
{
    public IReadOnlyList<ArchivedVolume> Volumes { get; } = volumes;

    /// <summary>Opens an image, to read it as a file.</summary>
    public Stream Open(string name) => open(name);

    public void Dispose() => end();
}
