using System.Globalization;
using System.Text;
using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Kvm.Machines;
using Unikraft.Platform.Kvm.Memory;

namespace Unikraft.Platform.Kvm.Tests.Testing;

/// <summary>A machine and what it says.</summary>
internal sealed class TestMachine(IVirtualMachine machine, RecordingMonitor monitor) : IAsyncDisposable
{
    internal IVirtualMachine Machine { get; } = machine;

    internal RecordingMonitor Monitor { get; } = monitor;

    internal GuestMemory Memory => ((KvmMachine)Machine).Memory;

    internal Task<MachineExit> Exited => Machine.Exited.Guarded();

    public ValueTask DisposeAsync() => new(Machine.DisposeAsync().Guarded());

    internal Task<IMachineSnapshot> CaptureAsync(CancellationToken cancellationToken = default) =>
        Machine.CaptureAsync(cancellationToken).Guarded();

    internal async Task SendAsync(string line)
    {
        ReadOnlyMemory<byte> bytes = Encoding.UTF8.GetBytes(line + "\n");
        while (!bytes.IsEmpty)
        {
            int taken = await Machine.WriteConsoleAsync(bytes).Guarded();
            Assert.NotEqual(0, taken);
            bytes = bytes[taken..];
        }
    }

    /// <summary>Lets the counter guest tick once.</summary>
    internal async Task<CounterLine> TickAsync()
    {
        await SendAsync("tick");
        return CounterLine.Parse(await Monitor.ReadLineAsync("nonce="));
    }

    /// <summary>Asks the counter guest for a random number of its own generator.</summary>
    internal async Task<string> DrawAsync()
    {
        await SendAsync("draw");
        return await Monitor.ReadLineAsync("draw=");
    }

    /// <summary>Asks the counter guest for its clocks.</summary>
    internal async Task<(TimeSpan Monotonic, DateTimeOffset Wall)> ReadClocksAsync()
    {
        await SendAsync("time");
        long[] nanoseconds = [.. (await Monitor.ReadLineAsync("time "))
            .Split(' ')
            .Skip(1)
            .Select(field => long.Parse(field[(field.IndexOf('=', StringComparison.Ordinal) + 1)..], CultureInfo.InvariantCulture))];
        return (
            TimeSpan.FromTicks(nanoseconds[0] / TimeSpan.NanosecondsPerTick),
            DateTimeOffset.UnixEpoch + TimeSpan.FromTicks(nanoseconds[1] / TimeSpan.NanosecondsPerTick));
    }

    /// <summary>Asks the counter guest for its mark.</summary>
    internal async Task<string> ShowAsync()
    {
        await SendAsync("show");
        return (await Monitor.ReadLineAsync("mark="))["mark=".Length..];
    }
}
