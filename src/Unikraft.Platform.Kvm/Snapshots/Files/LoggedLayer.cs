using Unikraft.Platform.Kvm.Memory;

namespace Unikraft.Platform.Kvm.Snapshots.Files;

/// <summary>A layer in a publication log.</summary>
/// <param name="Header">The header that its file gets.</param>
/// <param name="Index">The pages that it holds.</param>
/// <param name="ContentOffset">Where the first of them lies; the others follow by ascending number.</param>
internal sealed record LoggedLayer(LayerHeader Header, PageIndex Index, long ContentOffset)
{
    /// <summary>Reads a run of pages.</summary>
    /// <param name="content">The pages of the layer, by ascending number.</param>
    /// <param name="destination">Where to, in whole pages.</param>
    /// <param name="page">The first page.</param>
    internal void Read(ReadOnlySpan<byte> content, Span<byte> destination, int page)
    {
        if (!Index.TryFind(page, destination.Length >> PageSize.Shift, out int position))
        {
            throw new ArgumentException("The pages are not a run of the layer.", nameof(page));
        }

        content.Slice(position << PageSize.Shift, destination.Length).CopyTo(destination);
    }
}
