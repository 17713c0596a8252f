namespace Unikraft.Platform.TestKit;

/// <summary>A folder for disk images that goes when the test ends, after QEMU has judged every image in it.</summary>
/// <remarks>Every test that makes volumes or images has one, in its class or in the fixture that makes its platform; a test of the sources says so of one that has not.</remarks>
public sealed class JudgedFolder : IDisposable
{
    private readonly DirectoryInfo _folder;
    private readonly HashSet<string> _damaged = new(StringComparer.Ordinal);

    /// <param name="root">Where to make it; the folder for temporary files by default.</param>
    public JudgedFolder(string? root = null) =>
        _folder = root is null ? Directory.CreateTempSubdirectory("unikraft-judged-") : Directory.CreateDirectory(System.IO.Path.Combine(root, $"unikraft-judged-{Guid.NewGuid():N}"));

    /// <summary>Its path.</summary>
    public string Path => _folder.FullName;

    /// <summary>The path of something in it.</summary>
    /// <param name="name">Its name.</param>
    public string this[string name] => System.IO.Path.Combine(Path, name);

    /// <summary>Says that an image is damaged on purpose, or is one that QEMU's tools and this library are meant to see differently.</summary>
    /// <param name="name">Its name.</param>
    /// <returns>Its path.</returns>
    public string Damaged(string name)
    {
        _ = _damaged.Add(this[name]);
        return this[name];
    }

    /// <summary>Judges what is in it, and deletes it.</summary>
    public void Dispose()
    {
        IReadOnlyList<string> problems = LeftImages.FindProblems(Path, _damaged.Contains);
        _folder.Delete(recursive: true);
        Assert.Empty(problems);
    }
}
