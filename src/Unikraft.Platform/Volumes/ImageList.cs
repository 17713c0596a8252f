using System.Collections;

namespace Unikraft.Platform.Volumes;

/// <summary>An image and those that it is based on, the top first. Lists of one lineage share what they have in common.</summary>
internal sealed class ImageList(ImageChecksum image, ImageList? beneath) : IReadOnlyList<ImageChecksum>
{
    internal ImageChecksum Image { get; } = image;

    internal ImageList? Beneath { get; } = beneath;

    public int Count { get; } = (beneath?.Count ?? 0) + 1;

    public ImageChecksum this[int index] => this.ElementAt(index);

    public IEnumerator<ImageChecksum> GetEnumerator()
    {
        for (ImageList? list = this; list is not null; list = list.Beneath)
        {
            yield return list.Image;
        }
    }

    IEnumerator IEnumerable.GetEnumerator() => GetEnumerator();
}
