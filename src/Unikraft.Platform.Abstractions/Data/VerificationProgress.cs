using System.Runtime.InteropServices;

namespace Unikraft.Platform;

/// <summary>How far a verification has come.</summary>
/// <param name="Completed">The snapshots, images, logs and metadata that are done.</param>
/// <param name="Total">How many there are, known from the beginning.</param>
[StructLayout(LayoutKind.Auto)]
public readonly record struct VerificationProgress(int Completed, int Total);
