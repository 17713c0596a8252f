using Unikraft.Platform.Kvm.Interop;

namespace Unikraft.Platform.Kvm.Vcpus;

/// <summary>Counts the CPU time of one thread from one moment to another. Read by any thread.</summary>
/// <remarks>The lock keeps the thread from ending while its clock is read: another thread could get its number.</remarks>
internal sealed class ThreadCpuClock
{
    private readonly Lock _lock = new();
    private TimeSpan _start;
    private TimeSpan _counted;
    private int? _clock;

    /// <summary>What was counted so far.</summary>
    public TimeSpan Elapsed
    {
        get
        {
            lock (_lock)
            {
                return _clock is { } clock ? Read(clock) - _start : _counted;
            }
        }
    }

    /// <summary>Begins to count the time of the calling thread, which must call <see cref="Stop"/> before it ends.</summary>
    public void Start()
    {
        lock (_lock)
        {
            _clock = Libc.CpuClockOf(Libc.GetThreadId());
            _start = Read(Libc.ClockThreadCpuTime);
        }
    }

    public void Stop()
    {
        lock (_lock)
        {
            _counted = Read(Libc.ClockThreadCpuTime) - _start;
            _clock = null;
        }
    }

    private static TimeSpan Read(int clock) => Libc.GetTime(clock, out Libc.TimeSpecification time) == 0
        ? time.ToTimeSpan()
        : throw HostError.Last("Reading the CPU time of a vCPU");
}
