namespace Unikraft.Platform.Storage.Archives;

/// <summary>The files of an archive.</summary>
internal interface IArchiveReader : IDisposable
{
    /// <summary>Opens a file for reading.</summary>
    /// <param name="name">Its name, with slashes.</param>
    /// <returns><see langword="null"/> when there is none.</returns>
    Stream? Open(string name);
}
