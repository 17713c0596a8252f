using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.InMemory.Guests;

namespace Unikraft.Platform.InMemory;

/// <summary>The settings of the in-memory backend.</summary>
public sealed class InMemoryHypervisorOptions
{
    /// <summary>
    /// The guests, by the name of their image: its file name without folder and extension. Built in are <c>hello</c>, <c>counter</c>, <c>kv</c> and
    /// <c>crash</c>, the counterparts of the flat guests of that name.
    /// </summary>
    public IDictionary<string, Func<ScriptedGuest>> Guests { get; } = new Dictionary<string, Func<ScriptedGuest>>(StringComparer.Ordinal)
    {
        ["hello"] = static () => new HelloGuest(),
        ["counter"] = static () => new CounterGuest(),
        ["crash"] = static () => new CrashGuest(),
        ["kv"] = static () => new KvGuest(),
    };

    /// <summary>The largest number of vCPUs of a machine. Default: 8.</summary>
    public int MaxVcpus { get; set; } = 8;

    /// <summary>The largest memory of a machine in MiB. Nothing is allocated. Default: 65536.</summary>
    public int MaxMemoryMb { get; set; } = 65536;

    /// <summary>How long making a machine takes. Default: 0.</summary>
    public TimeSpan CreateLatency { get; set; }

    /// <summary>How long restoring a machine takes. Default: 0.</summary>
    public TimeSpan RestoreLatency { get; set; }

    /// <summary>How long a snapshot takes, during which the machine runs. Default: 0.</summary>
    public TimeSpan CaptureLatency { get; set; }

    /// <summary>Asked before a machine is made: an exception that it returns is thrown. Default: <see langword="null"/>.</summary>
    public Func<MachineConfiguration, Exception?>? CreateFailure { get; set; }

    /// <summary>Asked before a machine with the given UUID is restored: an exception that it returns is thrown. Default: <see langword="null"/>.</summary>
    public Func<Guid, Exception?>? RestoreFailure { get; set; }

    /// <summary>
    /// Asked before a snapshot of the machine with the given UUID is taken: an exception that it returns is thrown. Default: <see langword="null"/>.
    /// </summary>
    public Func<Guid, Exception?>? CaptureFailure { get; set; }
}
