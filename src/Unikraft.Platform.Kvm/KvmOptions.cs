namespace Unikraft.Platform.Kvm;

/// <summary>Options of the KVM backend.</summary>
public sealed class KvmOptions
{
    /// <summary>The default of <see cref="KickSignalOffset"/>.</summary>
    public const int DefaultKickSignalOffset = 6;

    /// <summary>
    /// Which real-time signal makes a vCPU leave the guest, counted from SIGRTMIN. 1 to 29; 0 belongs to the .NET runtime. All
    /// platforms of a process use the same one. Default: 6.
    /// </summary>
    public int KickSignalOffset { get; set; } = DefaultKickSignalOffset;

    /// <summary>
    /// Whether a guest of a few bytes is booted and snapshotted in the background when the first platform of a process is built, so that the JIT
    /// compiler is done before the first real guest needs it. Takes some 100 ms of one processor. Default: true.
    /// </summary>
    public bool WarmUp { get; set; } = true;
}
