using System.Globalization;
using System.Text;
using System.Threading.Channels;
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

    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(30);

    private readonly LineMonitor _monitor;

    private CounterGuest(KvmMachine machine, LineMonitor monitor)
    {
        Machine = machine;
        _monitor = monitor;
    }

    internal KvmMachine Machine { get; }

    /// <summary>The path of the image.</summary>
    internal static string Image => MeasureContext.Guest(Guest);

    /// <summary>Opens KVM.</summary>
    /// <param name="readyMachines">How many machines are kept ready.</param>
    internal static KvmHypervisor OpenHypervisor(int readyMachines = KvmOptions.DefaultReadyMachines) => new(
        new KvmOptions { ReadyMachines = readyMachines },
        new HypervisorContext(TimeProvider.System, NullLoggerFactory.Instance));

    /// <summary>The arguments of a guest that dirties pages when it is told to, after it has touched all of its memory once.</summary>
    /// <param name="memoryMb">The size of the memory.</param>
    /// <param name="pages">The pages that one tick dirties.</param>
    /// <param name="options">Further options, which win.</param>
    internal static string[] Arguments(int memoryMb, int pages, params ReadOnlySpan<string> options) =>
        ["--period-ms", "0", "--quiet", "--touch", "--pages", Text(pages), "--arena-mb", Text(memoryMb - OwnMemoryMb), .. options];

    /// <summary>Starts the guest, and takes the snapshot that later ones build on.</summary>
    /// <param name="hypervisor">Where.</param>
    /// <param name="memoryMb">The size of the memory.</param>
    /// <param name="pages">The pages that one tick dirties.</param>
    /// <param name="options">Further options of the guest.</param>
    /// <param name="cancellationToken">Cancels.</param>
    /// <param name="vcpus">The number of vCPUs.</param>
    internal static async Task<CounterGuest> StartAsync(
        KvmHypervisor hypervisor,
        int memoryMb,
        int pages,
        string[] options,
        CancellationToken cancellationToken,
        int vcpus = 1)
    {
        CounterGuest guest = await BootAsync(hypervisor, memoryMb, pages, options, cancellationToken, vcpus);
        try
        {
            (await guest.Machine.CaptureAsync(cancellationToken)).Dispose();
            return guest;
        }
        catch
        {
            await guest.DisposeAsync();
            throw;
        }
    }

    /// <summary>Starts the guest. It has touched all of its memory when this returns.</summary>
    /// <inheritdoc cref="StartAsync"/>
    internal static async Task<CounterGuest> BootAsync(
        KvmHypervisor hypervisor,
        int memoryMb,
        int pages,
        string[] options,
        CancellationToken cancellationToken,
        int vcpus = 1)
    {
        LineMonitor monitor = new();
        MachineConfiguration configuration = new()
        {
            Uuid = Guid.NewGuid(),
            Name = Guest,
            Image = GuestImage.FromFile(Image),
            Vcpus = vcpus,
            MemoryMb = memoryMb,
            Args = Arguments(memoryMb, pages, options),
        };
        KvmMachine machine = (KvmMachine)await hypervisor.CreateAsync(configuration, monitor, cancellationToken);
        CounterGuest guest = new(machine, monitor);
        try
        {
            await machine.StartAsync(cancellationToken);
            await guest.TickAsync(cancellationToken);
            return guest;
        }
        catch
        {
            await guest.DisposeAsync();
            throw;
        }
    }

    /// <summary>Makes a guest that continues from a snapshot.</summary>
    internal static async Task<CounterGuest> RestoreAsync(
        KvmHypervisor hypervisor,
        IMachineSnapshot snapshot,
        CancellationToken cancellationToken)
    {
        LineMonitor monitor = new();
        KvmMachine machine = (KvmMachine)await hypervisor.RestoreAsync(snapshot, Guid.NewGuid(), monitor, cancellationToken);
        await machine.StartAsync(cancellationToken);
        return new CounterGuest(machine, monitor);
    }

    /// <summary>Lets the guest dirty its pages, and waits until it has settled again.</summary>
    internal async ValueTask TickAsync(CancellationToken cancellationToken) => await CommandAsync("tick", cancellationToken);

    /// <summary>Lets the guest answer a command, and waits until it has settled again.</summary>
    /// <param name="command">The command.</param>
    /// <param name="cancellationToken">Cancels.</param>
    /// <returns>The numbers of the answer, by name.</returns>
    internal async Task<IReadOnlyDictionary<string, double>> AskAsync(string command, CancellationToken cancellationToken)
    {
        string line = await CommandAsync(command, cancellationToken);
        return line.Split(' ')
            .Select(part => part.Split('='))
            .ToDictionary(pair => pair[0], pair => double.Parse(pair[1], CultureInfo.InvariantCulture), StringComparer.Ordinal);
    }

    /// <summary>Lets the guest forget the gaps in its time, and look for the largest from now on.</summary>
    internal async Task<GapWatch> WatchAsync(CancellationToken cancellationToken)
    {
        IReadOnlyDictionary<string, double> answer = await AskAsync("watch", cancellationToken);
        GapWatch watch = new(Machine.Memory, (long)answer["watching_at"], answer["tsc_khz"]);
        while (!watch.HasBegun)
        {
            await Task.Delay(Settling, TimeProvider.System, cancellationToken);
        }

        return watch;
    }

    /// <summary>Takes a snapshot for which the guest dirties its pages between the last round of copying and the cut, and lets go of it.</summary>
    /// <param name="inGuest">Whether the pause is the largest gap in the guest's time, from before the cut until the call has returned.</param>
    /// <param name="cancellationToken">Cancels.</param>
    /// <returns>How long the guest stood still, in microseconds.</returns>
    internal async Task<double> MeasurePauseAsync(bool inGuest, CancellationToken cancellationToken)
    {
        GapWatch? watch = null;
        CaptureHooks hooks = new(BeforeCut: PrepareAsync, InCut: () => watch?.NoteSamples());
        using KvmSnapshot snapshot = await Machine.CaptureAsync(CaptureOptions.Default, hooks, cancellationToken);
        double pause = watch?.TakeGap() ?? snapshot.Pause.TotalMicroseconds;
        await Machine.Background.WaitAsync(cancellationToken);
        return pause;

        async ValueTask PrepareAsync()
        {
            await TickAsync(cancellationToken);
            watch = inGuest ? await WatchAsync(cancellationToken) : null;
        }
    }

    public ValueTask DisposeAsync() => Machine.DisposeAsync();

    private async Task<string> CommandAsync(string command, CancellationToken cancellationToken)
    {
        await Machine.WriteConsoleAsync(Encoding.ASCII.GetBytes(command + "\n"), cancellationToken);
        string line = await _monitor.Lines.ReadAsync(cancellationToken).AsTask().WaitAsync(Patience, TimeProvider.System, cancellationToken);
        await Task.Delay(Settling, TimeProvider.System, cancellationToken);
        return line;
    }

    private static string Text(int value) => value.ToString(CultureInfo.InvariantCulture);

    /// <summary>Collects what the guest prints, which comes a line at a time.</summary>
    private sealed class LineMonitor : IMachineMonitor
    {
        private readonly Channel<string> _lines = Channel.CreateUnbounded<string>();

        internal ChannelReader<string> Lines => _lines.Reader;

        public void OnConsoleOutput(ReadOnlySpan<byte> output)
        {
            foreach (string line in Encoding.ASCII.GetString(output).Split('\n', StringSplitOptions.RemoveEmptyEntries))
            {
                _lines.Writer.TryWrite(line);
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
    }
}
