using System.Runtime.InteropServices;

namespace Unikraft.Platform.Kvm.Interop;

/// <summary><c>struct timespec</c>, as a duration.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct SleepDuration
{
    internal long Seconds;
    internal long Nanoseconds;

    /// <summary>Sleeps for a fraction of a millisecond, which the runtime cannot. A signal ends it early.</summary>
    internal static void Sleep(TimeSpan duration)
    {
        SleepDuration argument = new()
        {
            Seconds = duration.Ticks / TimeSpan.TicksPerSecond,
            Nanoseconds = duration.Ticks % TimeSpan.TicksPerSecond * TimeSpan.NanosecondsPerTick,
        };
        _ = Libc.Sleep(in argument, 0);
    }
}
