using System.Runtime.InteropServices;

namespace Unikraft.Platform.Kvm.Boot;

/// <summary>A range of guest memory, in whole pages.</summary>
/// <param name="Start">Its first address.</param>
/// <param name="End">The address behind it.</param>
/// <param name="IsWritable">Whether the guest may write to it.</param>
[StructLayout(LayoutKind.Auto)]
internal readonly record struct GuestRange(long Start, long End, bool IsWritable);
