using System.Runtime.InteropServices;

namespace Unikraft.Platform.Kvm.Snapshots.Files;

/// <summary>The header of a layer file.</summary>
/// <param name="Id">What tells the layer from all others.</param>
/// <param name="GuestPages">The number of pages of the guest.</param>
/// <param name="StoredPages">How many of them the layer holds.</param>
/// <param name="Runs">The number of runs that they form.</param>
[StructLayout(LayoutKind.Auto)]
internal readonly record struct LayerHeader(Guid Id, int GuestPages, int StoredPages, int Runs);
