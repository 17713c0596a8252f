using System.Runtime.InteropServices;

namespace Unikraft.Platform.Kvm.Snapshots.Files;

/// <summary>A run of pages of a snapshot in a state file, where it lies like this.</summary>
/// <param name="Start">The first page.</param>
/// <param name="Length">The number of pages.</param>
/// <param name="Layer">Which of the layers of the state file they come from.</param>
[StructLayout(LayoutKind.Sequential)]
internal readonly record struct StoredExtent(int Start, int Length, int Layer);
