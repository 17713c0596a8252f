using Microsoft.Extensions.Logging;
using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Kvm.Boot;
using Unikraft.Platform.Kvm.Boot.Kernels;
using Unikraft.Platform.Kvm.Interop;
using Unikraft.Platform.Kvm.Machines.Kernels;
using Unikraft.Platform.Kvm.Snapshots;
using Unikraft.Platform.Kvm.Snapshots.Files;

namespace Unikraft.Platform.Kvm.Machines;

/// <summary>The KVM backend.</summary>
internal sealed class KvmHypervisor : IHypervisor
{
    private const int MinMemoryMb = 2;
    private const int MaxMemoryMb = 64 << 10;

    private readonly KvmHost _host;
    private readonly ILogger _logger;
    private readonly KvmSnapshotFiles _snapshotFiles;
    private readonly DirectorySync _directorySync;

    /// <param name="options">The options.</param>
    /// <param name="context">The clock and the log.</param>
    /// <param name="slotPages">The most pages of guest memory in one slot of KVM.</param>
    /// <param name="files">The file system of snapshots; that of the host when <see langword="null"/>.</param>
    /// <param name="log">How snapshots are kept before they have files; as is usual when <see langword="null"/>.</param>
    /// <param name="tsc">The time stamp counter of the host; as KVM tells when <see langword="null"/>.</param>
    internal KvmHypervisor(
        KvmOptions options,
        HypervisorContext context,
        int slotPages = int.MaxValue,
        IFileSystem? files = null,
        PublicationLogOptions? log = null,
        HostTsc? tsc = null)
    {
        KvmSupport support = KvmProbe.Check();
        if (!support.IsUsable)
        {
            throw new HypervisorUnavailableException(support.Message);
        }

        _logger = context.LoggerFactory.CreateLogger("Unikraft.Platform.Kvm");
        files ??= HostFileSystem.Instance;
        _snapshotFiles = new KvmSnapshotFiles(files, _logger, log ?? new PublicationLogOptions(context.TimeProvider));
        _directorySync = new DirectorySync(files);
        KickSignal kickSignal = KickSignal.Install(options.KickSignalOffset);
        _host = new KvmHost(kickSignal, context.TimeProvider, _logger, options.ReadyMachines, options.RefillDelay, slotPages, tsc);
        Info = new HypervisorInfo("kvm", support.Message, FlatGuestLayout.MaxVcpus, MinMemoryMb, MaxMemoryMb);
        Log.Opened(_logger, support.Message);
        if (options.WarmUp)
        {
            Rehearsal.BeginOnce(kickSignal, context.TimeProvider, _logger);
        }
    }

    public HypervisorInfo Info { get; }

    public async ValueTask<IVirtualMachine> CreateAsync(
        MachineConfiguration configuration,
        IMachineMonitor monitor,
        CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(configuration);
        ArgumentNullException.ThrowIfNull(monitor);
        if (configuration.Vcpus is < 1 or > FlatGuestLayout.MaxVcpus)
        {
            throw new InvalidRequestException($"A machine has 1 to {FlatGuestLayout.MaxVcpus} vCPUs, not {configuration.Vcpus}.");
        }

        if (configuration.MemoryMb is < MinMemoryMb or > MaxMemoryMb)
        {
            throw new InvalidRequestException($"A machine has {MinMemoryMb} to {MaxMemoryMb} MiB of memory, not {configuration.MemoryMb}.");
        }

        MachineDisk.Require(configuration.Disks);
        GuestImageContent content = await configuration.Image.ReadContentAsync(cancellationToken).ConfigureAwait(false);
        IVirtualMachine machine = KernelBoot.Find(configuration, content) is { } boot
            ? await KernelMachine.BootAsync(_host, boot, configuration, monitor, cancellationToken).ConfigureAwait(false)
            : await FlatMachine.BootAsync(_host, configuration, monitor, cancellationToken).ConfigureAwait(false);
        Log.Booted(_logger, configuration.Name, configuration.Vcpus, configuration.MemoryMb);
        return machine;
    }

    public async ValueTask<IVirtualMachine> RestoreAsync(
        IMachineSnapshot snapshot,
        Guid uuid,
        IMachineMonitor monitor,
        IReadOnlyList<MachineDisk> disks,
        CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(monitor);
        MachineDisk.Require(disks);
        if (snapshot is not KvmSnapshot own)
        {
            throw new ArgumentException("The snapshot was not taken by the KVM backend.", nameof(snapshot));
        }

        IVirtualMachine machine = own.Kernel is { } kernel
            ? await KernelMachine.RestoreAsync(_host, own, kernel, uuid, monitor, disks, cancellationToken).ConfigureAwait(false)
            : await FlatMachine.RestoreAsync(_host, own, uuid, monitor, disks, cancellationToken).ConfigureAwait(false);
        Log.Restored(_logger, uuid, own.Depth);
        return machine;
    }

    public TFeature? GetFeature<TFeature>()
        where TFeature : class => this as TFeature ?? _snapshotFiles as TFeature ?? _directorySync as TFeature;

    /// <summary>Waits until nothing is left of the machines that were disposed of so far, nor any work that they began.</summary>
    internal async Task ReclaimAsync()
    {
        await _host.Background.WhenDone().ConfigureAwait(false);
        await _host.Reclaimer.FlushAsync().ConfigureAwait(false);
    }

    public ValueTask DisposeAsync() => _host.DisposeAsync();
}
