using System.Runtime.InteropServices;

namespace Unikraft.Platform.Kvm.Snapshots.Files;

/// <summary>Names a layer and pins its content.</summary>
/// <param name="Id">The layer.</param>
/// <param name="Root">The root checksum of its file.</param>
[StructLayout(LayoutKind.Auto)]
internal readonly record struct LayerReference(Guid Id, Digest Root);
