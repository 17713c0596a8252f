using System.Text.RegularExpressions;
using Unikraft.Platform.Volumes.Qcow2;

namespace Unikraft.Platform.Volumes;

/// <summary>What a journal of volumes says, line by line. Lines that are damaged are told apart, so that the others can be used.</summary>
internal sealed partial class JournalContents
{
    private readonly Dictionary<Guid, VolumeRecord> _records = [];
    private readonly HashSet<Guid> _removed = [];

    /// <summary>The volumes that a whole line behind the last damaged one is about: nothing of them can be lost.</summary>
    private readonly HashSet<Guid> _certain = [];
    private readonly List<string> _damaged = [];
    private readonly List<string> _damagedInitially = [];

    internal IReadOnlyDictionary<Guid, VolumeRecord> Records => _records;

    internal bool IsDamaged => _damaged.Count + _damagedInitially.Count > 0;

    /// <summary>Whether damage has taken something that nobody else knows.</summary>
    internal bool IsDoubtful => _damaged.Count > 0;

    /// <summary>Reads a journal.</summary>
    /// <param name="lines">Its lines, behind the header.</param>
    /// <param name="parse">Makes a change of a line; <see langword="null"/> of one that is damaged.</param>
    /// <param name="damagedHeader">The header, if that is damaged.</param>
    internal static JournalContents Read(ReadOnlySpan<string> lines, Func<string, VolumeChange?> parse, string? damagedHeader)
    {
        JournalContents contents = new();
        if (damagedHeader is not null)
        {
            contents._damagedInitially.Add(damagedHeader);
        }

        VolumeChange?[] changes = new VolumeChange?[lines.Length];
        for (int i = 0; i < lines.Length; i++)
        {
            changes[i] = parse(lines[i]);
        }

        int initial = Array.FindIndex(changes, static change => change is { Set.Count: 0, Removed.Count: 0 });
        for (int i = 0; i < lines.Length; i++)
        {
            if (changes[i] is { } change)
            {
                contents.Apply(change);
            }
            else if (i < initial)
            {
                contents._damagedInitially.Add(lines[i]);
            }
            else if (i < lines.Length - 1)
            {
                contents._damaged.Add(lines[i]);
                contents._certain.Clear();
            }

            // Else: behind the last end of line there is nothing, or what a crash has left of a line.
        }

        return contents;
    }

    /// <summary>Adds the volumes whose line was damaged among those that the journal began with.</summary>
    /// <param name="copy">A copy of what it began with; <see langword="null"/> when there is none.</param>
    internal void Complete(JournalContents? copy)
    {
        if (copy is not { IsDamaged: false })
        {
            _damaged.AddRange(_damagedInitially);
            return;
        }

        foreach ((Guid uuid, VolumeRecord record) in copy._records)
        {
            if (!_removed.Contains(uuid))
            {
                _ = _records.TryAdd(uuid, record);
            }
        }
    }

    /// <summary>Marks the volumes of which a damaged line may have said something else: those that it seems to name, and those whose image others were put on.</summary>
    /// <param name="directory">The directory of the images.</param>
    /// <param name="damage">What to write down of them.</param>
    internal void MarkDoubtful(string directory, string damage)
    {
        HashSet<Guid> named = [.. _damaged.SelectMany(static line => UuidPattern().Matches(line)).Select(static match => Guid.Parse(match.ValueSpan))];
        HashSet<string> covered = FindCovered(directory);
        foreach (VolumeRecord record in _records.Values.ToArray())
        {
            bool isNamed = named.Contains(record.Uuid);
            if (!_certain.Contains(record.Uuid) && (isNamed || (record is { Top: { } top, IsTemplate: false } && covered.Contains(top))))
            {
                _records[record.Uuid] = record with { Damage = damage };
            }
        }
    }

    [GeneratedRegex("[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", RegexOptions.CultureInvariant | RegexOptions.ExplicitCapture, matchTimeoutMilliseconds: 10_000)]
    private static partial Regex UuidPattern();

    private void Apply(VolumeChange change)
    {
        foreach (VolumeRecord record in change.Set)
        {
            _records[record.Uuid] = record;
            _removed.Remove(record.Uuid);
            _certain.Add(record.Uuid);
        }

        foreach (Guid removed in change.Removed)
        {
            _records.Remove(removed);
            _removed.Add(removed);
        }
    }

    /// <summary>The images that one is based on which no volume is known to need.</summary>
    private HashSet<string> FindCovered(string directory)
    {
        Dictionary<string, string?> backings = new(StringComparer.Ordinal);
        foreach (string path in Directory.EnumerateFiles(directory, "*" + ImageDirectory.OverlaySuffix))
        {
            try
            {
                using ImageFile file = ImageFile.Open(path, isReadOnly: true);
                backings.Add(Path.GetFileName(path), Qcow2Header.Read(file).BackingFile);
            }
            catch (PlatformException)
            {
                // A volume that needs it says so when it is looked at.
                backings.Add(Path.GetFileName(path), null);
            }
        }

        HashSet<string> needed = new(StringComparer.Ordinal);
        foreach (VolumeRecord record in _records.Values)
        {
            for (string? next = record.Top; next is not null && needed.Add(next);)
            {
                next = backings.GetValueOrDefault(next);
            }
        }

        return [.. backings.Where(entry => !needed.Contains(entry.Key)).Select(static entry => entry.Value).OfType<string>()];
    }
}
