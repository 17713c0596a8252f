using System.Runtime.InteropServices;

namespace Unikraft.Platform.Hypervisors;

/// <summary>How far long work on snapshot files has come.</summary>
/// <param name="CompletedBytes">The bytes that are done.</param>
/// <param name="TotalBytes">The bytes that are to be done, known from the beginning.</param>
[StructLayout(LayoutKind.Auto)]
public readonly record struct SnapshotProgress(long CompletedBytes, long TotalBytes);
