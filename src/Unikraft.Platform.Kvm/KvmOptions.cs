namespace Unikraft.Platform.Kvm;

/// <summary>Options of the KVM backend.</summary>
public sealed class KvmOptions
{
    /// <summary>The default of <see cref="KickSignalOffset"/>.</summary>
    public const int DefaultKickSignalOffset = 6;

    /// <summary>The default of <see cref="ReadyMachines"/>.</summary>
    public const int DefaultReadyMachines = 2;

    /// <summary>
    /// Which real-time signal makes a vCPU leave the guest, counted from SIGRTMIN. 1 to 29; 0 belongs to the .NET runtime. All
    /// platforms of a process use the same one. Default: 6.
    /// </summary>
    public int KickSignalOffset { get; set; } = DefaultKickSignalOffset;

    /// <summary>
    /// How many machines are kept ready, for each of the four latest combinations of memory and vCPUs, so that a boot or a clone does not wait for
    /// the kernel; and as many, with its memory in place, for each of the four latest snapshots that were restored more than once. Each takes a VM, a
    /// thread for each vCPU and some 700 KiB of the kernel's memory; of guest memory none, or what lies scattered in its snapshot: at most 1/64 of
    /// its size or 1 MiB. Replacements are made in the background. 0 to 1024; 0 makes every machine when it is asked for. Default: 2.
    /// </summary>
    public int ReadyMachines { get; set; } = DefaultReadyMachines;

    /// <summary>
    /// How long after a machine was taken its replacement is begun, so that the two do not compete for processors; as soon as a machine is asked for and none is
    /// ready, they are begun at once. 0 to 1 minute. Default: 3 ms.
    /// </summary>
    public TimeSpan RefillDelay { get; set; } = TimeSpan.FromMilliseconds(3);

    /// <summary>
    /// Whether a guest of a few bytes is booted and snapshotted in the background when the first platform of a process is built, so that the JIT
    /// compiler is done before the first real guest needs it. Takes some 100 ms of one processor. Default: true.
    /// </summary>
    public bool WarmUp { get; set; } = true;
}
