using System.Collections.Concurrent;

namespace Unikraft.Platform.CrashChild;

/// <summary>Files on sectors that cannot be read any more. What is written in their place can be.</summary>
internal sealed class UnreadableFiles
{
    internal const int InputOutput = 5;

    private readonly ConcurrentDictionary<string, bool> _paths = new(StringComparer.Ordinal);

    internal UnreadableFiles(params IEnumerable<string> paths)
    {
        foreach (string path in paths)
        {
            _paths[path] = true;
        }
    }

    internal bool Has(string path) => _paths.ContainsKey(path);

    internal void Replaced(string path) => _paths.TryRemove(path, out _);

    internal void Renamed(string from, string to)
    {
        if (_paths.TryRemove(from, out _))
        {
            _paths[to] = true;
        }
        else
        {
            Replaced(to);
        }
    }
}
