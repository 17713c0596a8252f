using System.Globalization;
using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Kvm.Boot;
using Unikraft.Platform.Kvm.Devices;
using Unikraft.Platform.Kvm.Interop;
using Unikraft.Platform.Kvm.Memory;
using Unikraft.Platform.Kvm.Snapshots;
using Unikraft.Platform.Kvm.Vcpus;

namespace Unikraft.Platform.Kvm.Machines;

/// <summary>A machine on KVM: memory, vCPUs, disks and their life together, which are the same whatever it runs.</summary>
internal abstract class KvmMachine : IVirtualMachine, IMachineStatistics
{
    private readonly Parts _parts;
    private readonly Reclaimer _reclaimer;
    private readonly Lazy<Task> _disposal;
    private int _started;

    /// <param name="host">What machines share.</param>
    /// <param name="parts">What this one is made of.</param>
    private protected KvmMachine(KvmHost host, Parts parts)
    {
        _parts = parts;
        _reclaimer = host.Reclaimer;
        _disposal = new Lazy<Task>(DisposeCoreAsync);
    }

    public Task<MachineExit> Exited => Control.Exited;

    public abstract bool HasReachedMain { get; }

    public long Exits => Vcpus.Sum(static vcpu => vcpu.Exits);

    public long PrivateBytes => _disposal.IsValueCreated ? 0 : Memory.CountPrivateBytes();

    public long ResidentBytes => _disposal.IsValueCreated ? 0 : Memory.CountResidentBytes();

    public TimeSpan CpuTime => Vcpus.Aggregate(TimeSpan.Zero, static (sum, vcpu) => sum + vcpu.CpuTime);

    /// <summary>One for each thread of the shell.</summary>
    internal Vcpu[] Vcpus => _parts.Vcpus;

    /// <summary>The guest's memory.</summary>
    internal GuestMemory Memory => _parts.Shell.Memory;

    /// <summary>The work in the background that the last snapshot left behind.</summary>
    internal Task Background => _parts.Capture.Background;

    private protected RunControl Control => _parts.Control;

    private protected KvmDisks Disks => _parts.Disks;

    public async ValueTask StartAsync(CancellationToken cancellationToken = default)
    {
        cancellationToken.ThrowIfCancellationRequested();
        ObjectDisposedException.ThrowIf(_disposal.IsValueCreated, this);
        if (Interlocked.Exchange(ref _started, 1) != 0)
        {
            throw new InvalidOperationException("The machine was started before.");
        }

        await StartCoreAsync().ConfigureAwait(false);
    }

    public async ValueTask PauseAsync(CancellationToken cancellationToken = default)
    {
        cancellationToken.ThrowIfCancellationRequested();
        Control.Pause();
        try
        {
            await Control.WhenParked().WaitAsync(cancellationToken).ConfigureAwait(false);
            await Disks.HoldAsync(cancellationToken).ConfigureAwait(false);
        }
        catch
        {
            Control.Resume();
            throw;
        }
    }

    public void Resume()
    {
        Control.Resume();
        Disks.Release();
    }

    public async ValueTask<IMachineSnapshot> CaptureAsync(CaptureOptions options, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(options);
        return await CaptureAsync(options, hooks: null, cancellationToken).ConfigureAwait(false);
    }

    public void RefuseRequest(GuestRequestRefusal refusal) => Control.Answer(RequestAnswer.Refused((int)refusal), onlyTo: null);

    public void CompleteFork(Guid child) => Control.Answer(RequestAnswer.InParent(child), GuestCall.Fork);

    public abstract void RequestStop();

    public abstract void KillApp();

    public void Kill() => Control.End(new MachineExit.Killed());

    public abstract ValueTask<int> WriteConsoleAsync(ReadOnlyMemory<byte> input, CancellationToken cancellationToken = default);

    public TFeature? GetFeature<TFeature>()
        where TFeature : class => this as TFeature;

    public ValueTask DisposeAsync() => new(_disposal.Value);

    /// <inheritdoc cref="LiveCapture.CaptureAsync"/>
    internal async ValueTask<KvmSnapshot> CaptureAsync(CaptureOptions options, CaptureHooks? hooks, CancellationToken cancellationToken)
    {
        cancellationToken.ThrowIfCancellationRequested();
        if (Volatile.Read(ref _started) == 0)
        {
            throw new InvalidOperationException("The machine has not been started.");
        }

        return await _parts.Capture.CaptureAsync(options, hooks, cancellationToken).ConfigureAwait(false);
    }

    /// <summary>Puts together what a machine is made of.</summary>
    /// <param name="host">What machines share.</param>
    /// <param name="shell">Its memory, VM and threads.</param>
    /// <param name="control">Starts and stops its vCPUs, of which it is told.</param>
    /// <param name="bus">Where its devices are.</param>
    /// <param name="guest">What its vCPUs and snapshots know of the guest.</param>
    /// <param name="disks">Its disks.</param>
    /// <param name="name">What its threads are called after.</param>
    /// <param name="initialize">Brings a vCPU into its first state.</param>
    /// <param name="layout">The layout of its memory.</param>
    /// <param name="origin">The snapshot that it continues from; <see langword="null"/> when it boots.</param>
    private protected static Parts Assemble<TGuest>(
        KvmHost host,
        MachineShell shell,
        RunControl control,
        MmioBus bus,
        TGuest guest,
        KvmDisks disks,
        string name,
        Action<KvmVcpu, int> initialize,
        FlatGuestLayout layout,
        KvmSnapshot? origin)
        where TGuest : IVcpuGuest, IGuestState
    {
        VcpuEnvironment environment = new(control, bus, guest, host.KickSignal, host.TimeProvider);
        Vcpu[] vcpus =
        [
            .. Enumerable.Range(0, shell.Threads.Count).Select(index => new Vcpu(
                index,
                environment,
                initialize,
                string.Create(CultureInfo.InvariantCulture, $"vcpu{index} {name}"))),
        ];
        control.SetVcpus(vcpus);
        LiveCapture capture = new(
            environment,
            guest,
            new Lazy<DirtyTracker>(() => new DirtyTracker(shell.Vm.GetAwaiter().GetResult(), shell.Memory)),
            host.StagingPool,
            host.Sheets,
            host.Forecast,
            host.Background,
            host.Logger,
            disks,
            shell.Memory,
            layout,
            origin?.ShareMemory());
        return new Parts(shell, control, vcpus, disks, capture);
    }

    /// <summary>Lets the vCPUs run for the first time.</summary>
    private protected abstract Task StartCoreAsync();

    /// <summary>Lets go of what needs the VM, after the last vCPU and disk and before the VM goes.</summary>
    private protected virtual void Disconnect()
    {
    }

    private async Task DisposeCoreAsync()
    {
        Kill();
        await Exited.ConfigureAwait(false);
        await _parts.Capture.CloseAsync().ConfigureAwait(false);
        await Disks.DisposeAsync().ConfigureAwait(false);
        _parts.Capture.Dispose();
        Disconnect();
        await _reclaimer.TakeAsync(_parts.Shell).ConfigureAwait(false);
    }

    /// <summary>What every machine is made of.</summary>
    private protected sealed record Parts(MachineShell Shell, RunControl Control, Vcpu[] Vcpus, KvmDisks Disks, LiveCapture Capture);
}
