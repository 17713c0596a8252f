using System.Runtime.InteropServices;

namespace Unikraft.Platform.Volumes;

/// <summary>
/// What the lines of a journal have said so far of images that do not change any more. A line says what is new, and which image the rest begins with: the journal is as long as
/// what has happened, however deep a lineage is.
/// </summary>
/// <remarks>
/// The image right beneath the new ones is said again, so that of a lineage no single line is the only one to know an image that others are based on. Not safe for concurrent use.
/// </remarks>
internal sealed class ImageHistory
{
    private readonly Dictionary<ImageChecksum, ImageList> _lists = [];

    /// <summary>What was learned since <see cref="Shorten(VolumeChange)"/> was called, and what was known before.</summary>
    private readonly List<(ImageChecksum Image, ImageList? Before)> _learned = [];

    /// <summary>A change as a line is to say it, and as it is known from then on.</summary>
    internal VolumeChange Shorten(VolumeChange change)
    {
        _learned.Clear();
        return change.Set.All(static record => record.Images.Count == 0) ? change : change with { Set = [.. change.Set.Select(Shorten)] };
    }

    /// <summary>The last change could not be written.</summary>
    internal void TakeBack()
    {
        for (int i = _learned.Count - 1; i >= 0; i--)
        {
            (ImageChecksum image, ImageList? before) = _learned[i];
            if (before is null)
            {
                _lists.Remove(image);
            }
            else
            {
                _lists[image] = before;
            }
        }

        _learned.Clear();
    }

    /// <summary>What a line says of a volume, with all of its images.</summary>
    /// <returns><see langword="null"/> when no line has said what the rest of them is.</returns>
    internal VolumeRecord? TryComplete(VolumeRecord record)
    {
        ImageList? rest = null;
        if (record.Beneath is { } beneath && !_lists.TryGetValue(beneath, out rest))
        {
            return null;
        }

        _learned.Clear();
        return Learn([.. record.Images], rest) is { } images ? record with { Images = images, Beneath = null } : record;
    }

    /// <summary>Adds what another one knows and this one does not.</summary>
    internal void Add(ImageHistory other)
    {
        foreach ((ImageChecksum image, ImageList list) in other._lists)
        {
            _ = _lists.TryAdd(image, list);
        }
    }

    private VolumeRecord Shorten(VolumeRecord record)
    {
        // The longest part that is known as it is: what was read before, or written.
        List<ImageChecksum> above = [];
        ImageList? known = record.Images as ImageList;
        for (; known is not null && _lists.GetValueOrDefault(known.Image) != known; known = known.Beneath)
        {
            above.Add(known.Image);
        }

        if (record.Images is not ImageList)
        {
            above.AddRange(record.Images);
        }

        int learned = _learned.Count;
        Learn(above, known);

        // What is learned is at the top.
        int said = _learned.Count - learned + 1;
        return said < record.Images.Count ? record with { Images = [.. record.Images.Take(said)], Beneath = record.Images.ElementAt(said) } : record;
    }

    private ImageList? Learn(List<ImageChecksum> above, ImageList? rest)
    {
        for (int i = above.Count - 1; i >= 0; i--)
        {
            ref ImageList? known = ref CollectionsMarshal.GetValueRefOrAddDefault(_lists, above[i], out _);

            // One that was damaged in between has been described with two checksums, and what is above it twice.
            if (known is null || known.Beneath != rest)
            {
                _learned.Add((above[i], known));
                known = new ImageList(above[i], rest);
            }

            rest = known;
        }

        return rest;
    }
}
