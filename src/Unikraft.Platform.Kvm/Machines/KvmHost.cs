using Microsoft.Extensions.Logging;
using Unikraft.Platform.Kvm.Interop;
using Unikraft.Platform.Kvm.Memory;
using Unikraft.Platform.Kvm.Snapshots;

namespace Unikraft.Platform.Kvm.Machines;

/// <summary>What all machines of a hypervisor share.</summary>
internal sealed class KvmHost : IAsyncDisposable
{
    private readonly KvmDevice _device = KvmDevice.Open();
    private readonly Lazy<Task> _disposal;

    /// <param name="kickSignal">What makes a vCPU leave the guest.</param>
    /// <param name="timeProvider">The clock.</param>
    /// <param name="logger">Where to log.</param>
    /// <param name="readyMachines">How many shells of each shape to keep ready.</param>
    /// <param name="refillDelay">How long after one was taken its replacement is begun.</param>
    /// <param name="slotPages">The most pages of guest memory in one slot of KVM.</param>
    /// <param name="tsc">The time stamp counter; as KVM tells when <see langword="null"/>.</param>
    internal KvmHost(
        KickSignal kickSignal,
        TimeProvider timeProvider,
        ILogger logger,
        int readyMachines,
        TimeSpan refillDelay,
        int slotPages = int.MaxValue,
        HostTsc? tsc = null)
    {
        _disposal = new Lazy<Task>(DisposeCoreAsync);
        Tsc = tsc ?? HostTsc.Of(_device);
        SlotPages = slotPages;
        KickSignal = kickSignal;
        TimeProvider = timeProvider;
        Logger = logger;
        Reclaimer = new Reclaimer(logger);
        Sheets = new SheetPool(Background, timeProvider, logger, refillDelay);
        Shells = new ShellPool(_device, readyMachines, refillDelay, Reclaimer, timeProvider, logger);
    }

    internal KvmDevice Device => _device;

    internal HostTsc Tsc { get; }

    internal KickSignal KickSignal { get; }

    internal int SlotPages { get; }

    internal TimeProvider TimeProvider { get; }

    internal ILogger Logger { get; }

    internal StagingPool StagingPool { get; } = new();

    internal SheetPool Sheets { get; }

    internal CutForecast Forecast { get; } = new();

    internal ShellPool Shells { get; }

    internal Reclaimer Reclaimer { get; }

    internal BackgroundWork Background { get; } = new();

    public ValueTask DisposeAsync() => new(_disposal.Value);

    private async Task DisposeCoreAsync()
    {
        await Background.DisposeAsync().ConfigureAwait(false);
        await Shells.DisposeAsync().ConfigureAwait(false);
        await Reclaimer.DisposeAsync().ConfigureAwait(false);
        Sheets.Dispose();
        StagingPool.Dispose();
        _device.Dispose();
    }
}
