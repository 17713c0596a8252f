using System.Runtime.InteropServices;

namespace Unikraft.Platform.Kvm.Interop;

/// <summary>The clocks of threads.</summary>
internal static partial class Libc
{
    /// <summary>The CPU time of the calling thread.</summary>
    internal const int ClockThreadCpuTime = 3;

    /// <summary>The number of the clock that counts the CPU time of a thread of this process: CPUCLOCK_PERTHREAD and CPUCLOCK_SCHED of the kernel.</summary>
    internal static int CpuClockOf(int thread) => (~thread << 3) | 0b110;

    [LibraryImport(Library, EntryPoint = "clock_gettime", SetLastError = true)]
    internal static partial int GetTime(int clock, out TimeSpecification time);

    /// <summary><c>struct timespec</c>.</summary>
    [StructLayout(LayoutKind.Sequential)]
    internal readonly struct TimeSpecification
    {
        internal readonly long Seconds;
        internal readonly long Nanoseconds;

        internal TimeSpan ToTimeSpan() => new((Seconds * TimeSpan.TicksPerSecond) + (Nanoseconds / TimeSpan.NanosecondsPerTick));
    }
}
