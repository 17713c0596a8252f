using Unikraft.Platform.Instances;

namespace Unikraft.Platform.Resources;

/// <summary>How much of its quotas a platform uses.</summary>
internal sealed class QuotaUse(PlatformQuotas quotas)
{
    private readonly Lock _lock = new();
    private int _allocated;
    private int _live;
    private int _liveVcpus;
    private long _liveMemoryMb;

    /// <summary>Counts an instance, checkpoint or template.</summary>
    /// <param name="kind">What it is called in the error.</param>
    /// <exception cref="QuotaExceededException">There are as many as there may be.</exception>
    public void Allocate(string kind)
    {
        lock (_lock)
        {
            Require(_allocated + 1, quotas.Instances, "instances", $"Failed to allocate {kind}");
            _allocated++;
        }
    }

    /// <summary>Counts what was there before, even when there may not be as many any more.</summary>
    public void Recover()
    {
        lock (_lock)
        {
            _allocated++;
        }
    }

    public void Free()
    {
        lock (_lock)
        {
            _allocated--;
        }
    }

    /// <summary>Counts an instance that is going to run.</summary>
    /// <exception cref="QuotaExceededException">No more may run.</exception>
    public void EnterLive(string instance, InstanceConfiguration configuration)
    {
        string what = $"Cannot start instance '{instance}'";
        lock (_lock)
        {
            Require(_live + 1, quotas.LiveInstances, "live_instances", what);
            Require(_liveVcpus + configuration.Vcpus, quotas.LiveVcpus, "live_vcpus", what);
            Require(_liveMemoryMb + configuration.MemoryMb, quotas.LiveMemoryMb, "live_memory_mb", what);
            _live++;
            _liveVcpus += configuration.Vcpus;
            _liveMemoryMb += configuration.MemoryMb;
        }
    }

    public void LeaveLive(InstanceConfiguration configuration)
    {
        lock (_lock)
        {
            _live--;
            _liveVcpus -= configuration.Vcpus;
            _liveMemoryMb -= configuration.MemoryMb;
        }
    }

    private static void Require(long used, long? limit, string quota, string what)
    {
        if (used > limit)
        {
            throw new QuotaExceededException(what, quota, limit.Value);
        }
    }
}
