using System.Globalization;
using Microsoft.Extensions.Logging.Abstractions;
using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Kvm;
using Unikraft.Platform.Kvm.Machines;
using Unikraft.Platform.Kvm.Snapshots;

namespace Unikraft.Platform.Latency;

/// <summary>The guest that dirties a known number of pages when told to, on a machine of its own.</summary>
internal sealed class CounterGuest : IAsyncDisposable
{
    private const string Guest = "counter";

    /// <summary>What the guest itself needs beside its arena.</summary>
    private const int OwnMemoryMb = 8;

    /// <summary>From its last line the guest goes on to its next sleep within this.</summary>
    private static readonly TimeSpan Settling = TimeSpan.FromMilliseconds(2);

    private readonly LineMonitor _monitor;

    private CounterGuest(KvmMachine machine, LineMonitor monitor)
    {
        Machine = machine;
        _monitor = monitor;
    }

    internal KvmMachine Machine { get; }

    /// <summary>The path of the image.</summary>
    internal static string Image => MeasureContext.Guest(Guest);

    internal static KvmHypervisor OpenHypervisor() =>
        new(new KvmOptions(), new HypervisorContext(TimeProvider.System, NullLoggerFactory.Instance));

    /// <summary>Starts the guest and takes the snapshot that later ones build on, when it has touched all of its memory.</summary>
    /// <param name="hypervisor">Where.</param>
    /// <param name="memoryMb">The size of the memory.</param>
    /// <param name="pages">The pages that one tick dirties, at random places.</param>
    /// <param name="options">Further options of the guest.</param>
    /// <param name="cancellationToken">Cancels.</param>
    internal static async Task<CounterGuest> StartAsync(
        KvmHypervisor hypervisor,
        int memoryMb,
        int pages,
        string[] options,
        CancellationToken cancellationToken)
    {
        LineMonitor monitor = new();
        MachineConfiguration configuration = new()
        {
            Uuid = Guid.NewGuid(),
            Name = Guest,
            Image = GuestImage.FromFile(Image),
            Vcpus = 1,
            MemoryMb = memoryMb,
            Args = ["--period-ms", "0", "--quiet", "--random", "--touch", "--pages", Text(pages), "--arena-mb", Text(memoryMb - OwnMemoryMb), .. options],
        };
        KvmMachine machine = (KvmMachine)await hypervisor.CreateAsync(configuration, monitor, cancellationToken);
        CounterGuest guest = new(machine, monitor);
        try
        {
            await machine.StartAsync(cancellationToken);
            await guest.TickAsync(cancellationToken);
            (await machine.CaptureAsync(cancellationToken)).Dispose();
            return guest;
        }
        catch
        {
            await guest.DisposeAsync();
            throw;
        }
    }

    /// <summary>Lets the guest dirty its pages, and waits until it has settled again.</summary>
    internal async ValueTask TickAsync(CancellationToken cancellationToken)
    {
        await Machine.WriteConsoleAsync("tick\n"u8.ToArray(), cancellationToken);
        await _monitor.Lines.WaitAsync(cancellationToken);
        await Task.Delay(Settling, TimeProvider.System, cancellationToken);
    }

    /// <summary>Takes a snapshot and lets go of it.</summary>
    /// <param name="residue">What happens between the last round of copying and the cut.</param>
    /// <param name="cancellationToken">Cancels.</param>
    /// <returns>How long the guest stood still, in microseconds.</returns>
    internal async Task<double> MeasurePauseAsync(Func<ValueTask>? residue, CancellationToken cancellationToken)
    {
        using KvmSnapshot snapshot = await Machine.CaptureAsync(CaptureOptions.Default, new CaptureHooks(BeforeCut: residue), cancellationToken);
        await Machine.Folding.WaitAsync(cancellationToken);
        return snapshot.Pause.TotalMicroseconds;
    }

    public async ValueTask DisposeAsync()
    {
        await Machine.DisposeAsync();
        _monitor.Dispose();
    }

    private static string Text(int value) => value.ToString(CultureInfo.InvariantCulture);

    private sealed class LineMonitor : IMachineMonitor, IDisposable
    {
        internal SemaphoreSlim Lines { get; } = new(0);

        public void OnConsoleOutput(ReadOnlySpan<byte> output)
        {
            if (output.Count((byte)'\n') is > 0 and var lines)
            {
                Lines.Release(lines);
            }
        }

        public void OnMainReached()
        {
        }

        public void OnTemplateRequested()
        {
        }

        public void OnForkRequested()
        {
        }

        public void Dispose() => Lines.Dispose();
    }
}
