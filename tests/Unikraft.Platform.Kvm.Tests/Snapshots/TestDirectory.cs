using Unikraft.Platform.Kvm.Snapshots.Files;

namespace Unikraft.Platform.Kvm.Tests.Snapshots;

/// <summary>A directory of its own, which goes with the test.</summary>
internal sealed class TestDirectory : IDisposable
{
    internal string Path { get; } = Directory.CreateTempSubdirectory("snapshot-files-").FullName;

    /// <summary>The files, but for the one that stands for the lock and the log.</summary>
    internal IReadOnlyList<string> Files =>
        [.. Directory.EnumerateFiles(Path).Select(file => System.IO.Path.GetFileName(file)).Where(name => name is not ("lock" or LogFormat.Name)).Order(StringComparer.Ordinal)];

    internal string StateOf(Guid id) => System.IO.Path.Combine(Path, $"{id:D}.state");

    internal string LayerOf(Guid id) => System.IO.Path.Combine(Path, $"{id:D}.layer");

    public void Dispose() => Directory.Delete(Path, recursive: true);
}
