namespace Unikraft.Platform.Volumes.Tests.Testing;

/// <summary>A folder that goes when the test ends.</summary>
internal sealed class TestFolder : IDisposable
{
    private readonly DirectoryInfo _folder = Directory.CreateTempSubdirectory("unikraft-volumes-");

    public void Dispose() => _folder.Delete(recursive: true);

    internal string this[string name] => Path.Combine(_folder.FullName, name);
}
