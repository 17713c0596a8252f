using System.Security.Cryptography;
using System.Text;
using Unikraft.Platform.Hypervisors;

namespace Unikraft.Platform.InMemory;

/// <summary>The machine that a scripted guest runs in, as the guest sees it: the counterpart of the guest ABI's platform device.</summary>
public sealed class ScriptedGuestContext
{
    private readonly InMemoryMachine _machine;

    internal ScriptedGuestContext(InMemoryMachine machine) => _machine = machine;

    /// <summary>The arguments. The first one is the name under which the machine was made.</summary>
    public IReadOnlyList<string> Args => _machine.Args;

    /// <summary>The environment.</summary>
    public IReadOnlyDictionary<string, string> Env => _machine.Configuration.Env;

    /// <summary>The number of vCPUs.</summary>
    public int Vcpus => _machine.Configuration.Vcpus;

    /// <summary>The size of the memory in MiB.</summary>
    public int MemoryMb => _machine.Configuration.MemoryMb;

    /// <summary>The UUID of the instance. Another one in every clone.</summary>
    public Guid InstanceUuid => _machine.Uuid;

    /// <summary>16 random bytes. Others in every clone.</summary>
    public ReadOnlyMemory<byte> GenerationId => _machine.GenerationId;

    /// <summary>The time since boot. Never goes back, in a clone neither.</summary>
    public TimeSpan Monotonic => _machine.Monotonic;

    /// <summary>The date and time.</summary>
    public DateTimeOffset UtcNow => _machine.UtcNow;

    /// <summary>Whether the caller wants the instance to stop.</summary>
    public bool IsStopRequested => _machine.PendingEvents.HasFlag(GuestEvents.StopRequested);

    /// <summary>
    /// How the last <see cref="GuestStep.BecomeTemplate"/> or <see cref="GuestStep.Fork"/> ended: 0, or the Linux error number with which the
    /// platform has refused it, <c>EAGAIN</c> (11) or <c>EBUSY</c> (16).
    /// </summary>
    public int RequestError => _machine.RequestOutcome.Errno;

    /// <summary>Whether the guest is the child of the last <see cref="GuestStep.Fork"/>.</summary>
    public bool IsForkChild => _machine.RequestOutcome.IsForkChild;

    /// <summary>The UUID of the child of the last <see cref="GuestStep.Fork"/>.</summary>
    public Guid ForkChild => _machine.RequestOutcome.ForkChild;

    /// <summary>The disks.</summary>
    public IReadOnlyList<MachineDisk> Disks => _machine.Disks;

    /// <summary>The events that are pending.</summary>
    public GuestEvents PendingEvents => _machine.PendingEvents;

    /// <summary>Says where the guest is in its life. Reaching level 127 for the first time means that the instance is running.</summary>
    /// <param name="level">The level, 0 to 127; it goes into later stop codes.</param>
    /// <param name="isShuttingDown">The shutdown bit of later stop codes.</param>
    /// <exception cref="ArgumentOutOfRangeException">The level is out of range.</exception>
    public void SetInitLevel(int level, bool isShuttingDown = false)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(level);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(level, StopCode.AppInitLevel);
        _machine.SetInitLevel(level, isShuttingDown);
    }

    /// <summary>Says that the app has left its main entry point. A later <see cref="GuestStep.Stop"/> then has this exit code.</summary>
    /// <param name="exitCode">The exit code.</param>
    public void SetExitCode(int exitCode) => _machine.ExitCode = exitCode;

    /// <summary>Writes to the console.</summary>
    /// <param name="output">The bytes.</param>
    public void Write(ReadOnlySpan<byte> output) => _machine.WriteOutput(output);

    /// <summary>Writes a line in UTF-8 to the console.</summary>
    /// <param name="line">The text before the end of line.</param>
    public void WriteLine(string line) => Write(Encoding.UTF8.GetBytes(line + "\n"));

    /// <summary>Reads what input there is, without waiting.</summary>
    /// <param name="destination">Where to.</param>
    /// <returns>How many bytes; 0 when there is none.</returns>
    public int Read(Span<byte> destination) => _machine.ReadInput(destination);

    /// <summary>Reads the next line of input, if all of it has arrived. A line of more than 1024 bytes is cut.</summary>
    /// <returns>The line without its end, or <see langword="null"/>.</returns>
    public string? ReadLine() => _machine.ReadLine();

    /// <summary>Fills a buffer from the host's cryptographic generator.</summary>
    /// <param name="destination">The buffer.</param>
    public void FillRandom(Span<byte> destination)
    {
        ObjectDisposedException.ThrowIf(_machine.Exited.IsCompleted, this);
        RandomNumberGenerator.Fill(destination);
    }

    /// <summary>Reads from a disk.</summary>
    /// <param name="slot">The slot of the disk.</param>
    /// <param name="offset">Where, in bytes.</param>
    /// <param name="buffer">Filled as a whole.</param>
    /// <returns>0, or the Linux error number of the failure: <c>EIO</c> (5), or <c>ENODEV</c> (19) when there is no such disk.</returns>
    public int ReadDisk(int slot, long offset, Memory<byte> buffer) => _machine.OnDisk(slot, disk => disk.ReadAsync(offset, buffer));

    /// <summary>Writes to a disk. What is written is durable after the next <see cref="FlushDisk"/>.</summary>
    /// <param name="slot">The slot of the disk.</param>
    /// <param name="offset">Where, in bytes.</param>
    /// <param name="data">The bytes.</param>
    /// <returns>0, or the Linux error number of the failure, as for <see cref="ReadDisk"/>.</returns>
    public int WriteDisk(int slot, long offset, ReadOnlyMemory<byte> data) => _machine.OnDisk(slot, disk => disk.WriteAsync(offset, data));

    /// <summary>Makes durable what was written to a disk.</summary>
    /// <param name="slot">The slot of the disk.</param>
    /// <returns>0, or the Linux error number of the failure, as for <see cref="ReadDisk"/>.</returns>
    public int FlushDisk(int slot) => _machine.OnDisk(slot, static disk => disk.FlushAsync());

    /// <summary>Makes <see cref="GuestEvents.Wake"/> pending. May be called from anywhere.</summary>
    public void Wake() => _machine.Wake();
}
