using System.Runtime.InteropServices;

namespace Unikraft.Platform.Volumes.Qcow2;

/// <summary>Neighbouring bytes of the disk that are in the same kind of place, and if that is the file, next to each other there.</summary>
/// <param name="Kind">Where they are.</param>
/// <param name="Length">How many.</param>
/// <param name="FileOffset">For data, where in the file they are.</param>
/// <param name="Entry">For compressed data, what describes it.</param>
[StructLayout(LayoutKind.Auto)]
internal readonly record struct ClusterRun(ClusterKind Kind, int Length, long FileOffset = 0, ulong Entry = 0);
