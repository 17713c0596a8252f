using System.Runtime.InteropServices;

namespace Unikraft.Platform.Kvm.Memory;

/// <summary>A run of pages.</summary>
/// <param name="Start">The first page.</param>
/// <param name="Length">The number of pages, at least 1.</param>
[StructLayout(LayoutKind.Auto)]
internal readonly record struct PageRun(int Start, int Length)
{
    internal int End => Start + Length;
}
