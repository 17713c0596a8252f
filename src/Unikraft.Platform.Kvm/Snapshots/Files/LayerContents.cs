using Unikraft.Platform.Kvm.Memory;

namespace Unikraft.Platform.Kvm.Snapshots.Files;

/// <summary>What a layer file holds besides its pages.</summary>
/// <param name="Header">The header.</param>
/// <param name="Index">Which pages it holds.</param>
/// <param name="Checksums">A checksum for each chunk of them.</param>
/// <param name="Root">The checksum that stands for everything.</param>
internal sealed record LayerContents(LayerHeader Header, PageIndex Index, byte[] Checksums, Digest Root)
{
    internal long FileLength => LayerFormat.Length(Header.StoredPages, Header.Runs);
}
