using System.Text.RegularExpressions;
using Unikraft.Platform.Storage;
using Unikraft.Platform.Volumes.Qcow2;

namespace Unikraft.Platform.Volumes;

/// <summary>What a journal of volumes says, line by line. Lines that are damaged are told apart, so that the others can be used.</summary>
internal sealed partial class JournalContents
{
    private const int SectorSize = 512;

    private readonly Dictionary<Guid, VolumeRecord> _records = [];
    private readonly HashSet<Guid> _removed = [];

    /// <summary>The volumes that a whole line behind the last damaged one is about: nothing of them can be lost.</summary>
    private readonly HashSet<Guid> _certain = [];
    private readonly List<string> _damaged = [];
    private readonly List<string> _damagedInitially = [];

    /// <summary>The lines about volumes of whose images others have said more, which are damaged. In the order of the lines.</summary>
    private readonly List<VolumeRecord> _incomplete = [];

    /// <summary>What its lines say of images.</summary>
    internal ImageHistory Images { get; } = new();

    internal IReadOnlyDictionary<Guid, VolumeRecord> Records => _records;

    /// <summary>Whether lines can be added behind <see cref="Length"/>, when nothing of it is damaged.</summary>
    internal bool CanGrow { get; private set; }

    /// <summary>The length in bytes of what it says, when nothing of it is damaged.</summary>
    internal long Length { get; private set; }

    internal bool IsDamaged => _damaged.Count + _damagedInitially.Count + _incomplete.Count > 0;

    /// <summary>Whether damage has taken something that nobody else knows.</summary>
    internal bool IsDoubtful => _damaged.Count > 0 || _records.Values.Any(static record => record.Beneath is not null);

    /// <summary>Reads a journal.</summary>
    /// <param name="lines">Its lines, behind the header, a character for each byte. Behind the last end of line there is one more.</param>
    /// <param name="parse">Makes a change of a line; <see langword="null"/> of one that is damaged.</param>
    /// <param name="damagedHeader">The header, if that is damaged.</param>
    /// <param name="headerLength">The length of the header in bytes, with its end of line.</param>
    /// <param name="isWhole">Whether its end is there.</param>
    /// <param name="canGrow">Whether it is of the present format.</param>
    internal static JournalContents Read(ReadOnlySpan<string> lines, Func<string, VolumeChange?> parse, string? damagedHeader, int headerLength, bool isWhole, bool canGrow)
    {
        JournalContents contents = new() { CanGrow = canGrow, Length = headerLength };
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
            bool hasEnd = i < lines.Length - 1;
            if (changes[i] is { } change)
            {
                // One that has no end, for a crash came before that or the end is damaged, is taken: it may have been acknowledged.
                contents.Apply(change);
                contents.CanGrow &= hasEnd;
            }
            else if (i < initial)
            {
                contents._damagedInitially.Add(lines[i]);
            }
            else if (hasEnd ? !IsTorn(lines[i..], contents.Length) : IsWholeBeforeLast(lines[i], parse))
            {
                contents._damaged.Add(lines[i]);
                contents._certain.Clear();
            }
            else
            {
                // What a crash has left of a line, or nothing.
                continue;
            }

            contents.Length += lines[i].Length + 1;
        }

        if (!isWhole || initial < 0)
        {
            // Nobody knows what it said.
            contents._damaged.Add("");
            contents._certain.Clear();
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

        Images.Add(copy.Images);
        foreach (VolumeRecord record in _incomplete)
        {
            // It may have changed since, or be gone: what is above it builds on what it says all the same.
            if (Images.TryComplete(record) is { } complete && ReferenceEquals(_records.GetValueOrDefault(record.Uuid), record))
            {
                _records[record.Uuid] = complete;
            }
        }
    }

    /// <summary>Marks the volumes of which a damaged line may have said something else: those that it seems to name, and those whose image others were put on.</summary>
    /// <param name="files">The directory of the images.</param>
    /// <param name="damage">What to write down of them.</param>
    internal void MarkDoubtful(DataFiles files, string damage)
    {
        HashSet<Guid> named = [.. _damaged.SelectMany(static line => UuidPattern().Matches(line)).Select(static match => Guid.Parse(match.ValueSpan))];
        HashSet<string> covered = FindCovered(files);
        foreach (VolumeRecord record in _records.Values.ToArray())
        {
            bool isNamed = named.Contains(record.Uuid);
            if (record.Beneath is not null
                || (!_certain.Contains(record.Uuid) && (isNamed || (record is { Top: { } top, IsTemplate: false } && covered.Contains(top)))))
            {
                _records[record.Uuid] = record with { Damage = damage, Beneath = null };
            }
        }
    }

    // The last line that was being written when the power went out: of some sectors there is nothing yet.
    private static bool IsTorn(ReadOnlySpan<string> last, long offset)
    {
        if (last.Length != 2 || last[1].Length > 0)
        {
            return false;
        }

        ReadOnlySpan<char> rest = last[0];
        bool misses = false;
        while (!rest.IsEmpty)
        {
            ReadOnlySpan<char> sector = rest[..(int)Math.Min(rest.Length, SectorSize - (offset % SectorSize))];
            if (!sector.Contains('\0'))
            {
                // It is there.
            }
            else if (sector.ContainsAnyExcept('\0'))
            {
                return false;
            }
            else
            {
                misses = true;
            }

            offset += sector.Length;
            rest = rest[sector.Length..];
        }

        return misses;
    }

    // A line whose end has become something else: a crash leaves no more than there was of it.
    private static bool IsWholeBeforeLast(string line, Func<string, VolumeChange?> parse) => line.Length > 0 && parse(line[..^1]) is not null;

    [GeneratedRegex("[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", RegexOptions.CultureInvariant | RegexOptions.ExplicitCapture, matchTimeoutMilliseconds: 10_000)]
    private static partial Regex UuidPattern();

    private void Apply(VolumeChange change)
    {
        foreach (VolumeRecord record in change.Set)
        {
            VolumeRecord? complete = Images.TryComplete(record);
            if (complete is null)
            {
                _incomplete.Add(record);
            }

            _records[record.Uuid] = complete ?? record;
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
    private HashSet<string> FindCovered(DataFiles files)
    {
        Dictionary<string, string?> backings = new(StringComparer.Ordinal);
        foreach (string name in files.List("").Where(static name => name.EndsWith(ImageDirectory.OverlaySuffix, StringComparison.Ordinal)))
        {
            try
            {
                using ImageFile file = ImageFile.Open(files.PathOf(name), isReadOnly: true, files.Layer);
                backings.Add(name, Qcow2Header.Read(file).BackingFile);
            }
            catch (PlatformException)
            {
                // A volume that needs it says so when it is looked at.
                backings.Add(name, null);
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
