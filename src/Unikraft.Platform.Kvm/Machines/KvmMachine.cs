using System.Globalization;
using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Kvm.Boot;
using Unikraft.Platform.Kvm.Devices;
using Unikraft.Platform.Kvm.Interop;
using Unikraft.Platform.Kvm.Memory;
using Unikraft.Platform.Kvm.Snapshots;
using Unikraft.Platform.Kvm.Vcpus;

namespace Unikraft.Platform.Kvm.Machines;

/// <summary>A flat guest on KVM: memory, vCPUs, devices and their life together.</summary>
internal sealed class KvmMachine : IVirtualMachine, IMachineStatistics
{
    private readonly MachineShell _shell;
    private readonly Reclaimer _reclaimer;
    private readonly GuestMemory _memory;
    private readonly RunControl _control;
    private readonly PlatformDevice _platform;
    private readonly FaultDevice _faults;
    private readonly Vcpu[] _vcpus;
    private readonly KvmDisks _disks;
    private readonly LiveCapture _capture;
    private readonly Lazy<Task> _disposal;
    private int _started;

    private KvmMachine(Parts parts, KvmHost host, IMachineMonitor monitor)
    {
        _shell = parts.Shell;
        _reclaimer = host.Reclaimer;
        _memory = _shell.Memory;
        _disposal = new Lazy<Task>(DisposeCoreAsync);
        GuestClock clock = new(host.TimeProvider, parts.Origin?.Device.Monotonic ?? 0);
        _control = new RunControl(clock, events => InfoPage.WriteEvents(_memory, events), () => _platform!.Input.Close());
        _platform = new PlatformDevice(_memory, parts.Layout, monitor, _control, clock, new ConsoleInput(_control));
        _faults = new FaultDevice(_memory, parts.Layout, _platform, _control);

        _disks = new KvmDisks(_memory, parts.Disks, _control, monitor);
        _platform.ServeDisks = _disks.Serve;

        MmioBus bus = new();
        bus.Attach(FlatGuestLayout.DevicePhysicalAddress, PageSize.Bytes, _platform);
        bus.Attach(FlatGuestLayout.FaultPhysicalAddress, PageSize.Bytes, _faults);
        _disks.Attach(bus);
        FlatGuest guest = new(_platform, _faults, _control);
        VcpuEnvironment environment = new(
            _control,
            bus,
            guest,
            host.KickSignal,
            host.TimeProvider);

        _vcpus = new Vcpu[parts.Layout.Vcpus];
        for (int i = 0; i < _vcpus.Length; i++)
        {
            string name = string.Create(CultureInfo.InvariantCulture, $"vcpu{i} {parts.Name}");
            _vcpus[i] = new Vcpu(i, environment, parts.Initialize, name);
            if (parts.Origin is { } origin)
            {
                _vcpus[i].Restore(origin.Vcpus[i]);
            }
        }

        _control.SetVcpus(_vcpus);
        _capture = new LiveCapture(
            environment,
            guest,
            new Lazy<DirtyTracker>(() => new DirtyTracker(_shell.Vm.GetAwaiter().GetResult(), _memory)),
            host.StagingPool,
            host.Sheets,
            host.Forecast,
            host.Background,
            host.Logger,
            _disks,
            _memory,
            parts.Layout,
            parts.Origin?.ShareMemory());
    }

    public Task<MachineExit> Exited => _control.Exited;

    public bool HasReachedMain => _platform.HasReachedMain;

    public long Exits => _vcpus.Sum(static vcpu => vcpu.Exits);

    public long PrivateBytes => _disposal.IsValueCreated ? 0 : _memory.CountPrivateBytes();

    public long ResidentBytes => _disposal.IsValueCreated ? 0 : _memory.CountResidentBytes();

    public TimeSpan CpuTime => _vcpus.Aggregate(TimeSpan.Zero, static (sum, vcpu) => sum + vcpu.CpuTime);

    /// <summary>The work in the background that the last snapshot left behind.</summary>
    internal Task Background => _capture.Background;

    /// <summary>Guest memory, for tests that look at it or damage it.</summary>
    internal GuestMemory Memory => _memory;

    /// <summary>Boots an image.</summary>
    internal static async ValueTask<KvmMachine> BootAsync(
        KvmHost host,
        MachineConfiguration configuration,
        IMachineMonitor monitor,
        CancellationToken cancellationToken)
    {
        string name = configuration.Image.Name;
        ElfImage image = ElfImage.Parse(name, await configuration.Image.ReadAsync(cancellationToken).ConfigureAwait(false));
        FlatGuestLayout layout = new(image, (long)configuration.MemoryMb << 20, configuration.Vcpus);
        GuestStrings strings = GuestStrings.From(configuration);

        return await MakeAsync(
            host,
            layout,
            memory: null,
            configuration.Name,
            configuration.Disks,
            origin: null,
            (vcpu, index) => FlatGuestLoader.Enter(vcpu, index, image, layout),
            parts => new KvmMachine(parts, host, monitor),
            machine =>
            {
                FlatGuestLoader.Load(machine._memory, image, layout, strings, configuration.Uuid, name);
                InfoPage.WriteDisks(machine._memory, configuration.Disks);
                InfoPage.WriteTscKhz(machine._memory, host.Tsc.Khz);
            },
            cancellationToken).ConfigureAwait(false);
    }

    /// <summary>Makes a machine that continues from a snapshot.</summary>
    internal static async ValueTask<KvmMachine> RestoreAsync(
        KvmHost host,
        KvmSnapshot snapshot,
        Guid uuid,
        IMachineMonitor monitor,
        IReadOnlyList<MachineDisk> disks,
        CancellationToken cancellationToken)
    {
        cancellationToken.ThrowIfCancellationRequested();
        KvmDisks.Require(snapshot.Disks, disks);
        using PageMap map = snapshot.ShareMemory();
        return await MakeAsync(
            host,
            snapshot.Layout,
            map,
            uuid.ToString("D"),
            disks,
            snapshot,
            (vcpu, index) => snapshot.Vcpus[index].Restore(vcpu),
            parts => new KvmMachine(parts, host, monitor),
            machine =>
            {
                machine._memory.Install(map);
                InfoPage.WriteIdentity(machine._memory, uuid);
                InfoPage.WriteDisks(machine._memory, disks);

                // The snapshot may come from another host, and this guest asks here how fast its counter runs whenever it wants to know.
                InfoPage.WriteTscKhz(machine._memory, host.Tsc.Khz);
                machine._control.Lower(GuestEvents.StopRequested);
                machine._disks.Restore(snapshot.Disks);
                machine._platform.Restore(snapshot.Device);
                for (int i = 0; i < snapshot.Vcpus.Count; i++)
                {
                    if (snapshot.Vcpus[i].Wait is { IsRequest: true } request)
                    {
                        machine._platform.FinishRequest(i, request.Call, request.Address, RequestAnswer.InClone(uuid));
                    }
                }
            },
            cancellationToken).ConfigureAwait(false);
    }

    public ValueTask StartAsync(CancellationToken cancellationToken = default)
    {
        cancellationToken.ThrowIfCancellationRequested();
        ObjectDisposedException.ThrowIf(_disposal.IsValueCreated, this);
        if (Interlocked.Exchange(ref _started, 1) != 0)
        {
            throw new InvalidOperationException("The machine was started before.");
        }

        _disks.Release();

        // The threads may still be bringing their vCPUs into their first state: who waited for that first would start later.
        _control.Start();
        return new ValueTask(_control.Ready);
    }

    public async ValueTask PauseAsync(CancellationToken cancellationToken = default)
    {
        cancellationToken.ThrowIfCancellationRequested();
        _control.Pause();
        try
        {
            await _control.WhenParked().WaitAsync(cancellationToken).ConfigureAwait(false);
            await _disks.HoldAsync(cancellationToken).ConfigureAwait(false);
        }
        catch
        {
            _control.Resume();
            throw;
        }
    }

    public void Resume()
    {
        _control.Resume();
        _disks.Release();
    }

    public async ValueTask<IMachineSnapshot> CaptureAsync(CaptureOptions options, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(options);
        return await CaptureAsync(options, hooks: null, cancellationToken).ConfigureAwait(false);
    }

    /// <inheritdoc cref="LiveCapture.CaptureAsync"/>
    internal async ValueTask<KvmSnapshot> CaptureAsync(CaptureOptions options, CaptureHooks? hooks, CancellationToken cancellationToken)
    {
        cancellationToken.ThrowIfCancellationRequested();
        if (Volatile.Read(ref _started) == 0)
        {
            throw new InvalidOperationException("The machine has not been started.");
        }

        return await _capture.CaptureAsync(options, hooks, cancellationToken).ConfigureAwait(false);
    }

    public void RefuseRequest(GuestRequestRefusal refusal) => _control.Answer(RequestAnswer.Refused((int)refusal), onlyTo: null);

    public void CompleteFork(Guid child) => _control.Answer(RequestAnswer.InParent(child), GuestCall.Fork);

    public void RequestStop() => _control.Raise(GuestEvents.StopRequested);

    public void KillApp()
    {
        _faults.ExpectKill();
        _control.RequestNmi(vcpu: 0);
    }

    public void Kill() => _control.End(new MachineExit.Killed());

    public ValueTask<int> WriteConsoleAsync(ReadOnlyMemory<byte> input, CancellationToken cancellationToken = default) =>
        _platform.Input.WriteAsync(input, cancellationToken);

    public TFeature? GetFeature<TFeature>()
        where TFeature : class => this as TFeature;

    public ValueTask DisposeAsync() => new(_disposal.Value);

    private static async ValueTask<KvmMachine> MakeAsync(
        KvmHost host,
        FlatGuestLayout layout,
        PageMap? memory,
        string name,
        IReadOnlyList<MachineDisk> disks,
        KvmSnapshot? origin,
        Action<KvmVcpu, int> initialize,
        Func<Parts, KvmMachine> construct,
        Action<KvmMachine> load,
        CancellationToken cancellationToken)
    {
        cancellationToken.ThrowIfCancellationRequested();
        MachineShell shell = host.Shells.Rent(new MachineShape(layout.MemorySize, layout.Vcpus, host.SlotPages), memory);
        return await shell.EquipAsync(
            shell => construct(new Parts(shell, layout, name, disks, origin, initialize)),
            static machine => machine._vcpus,
            async machine =>
            {
                load(machine);
                await shell.AttachAsync().ConfigureAwait(false);
                cancellationToken.ThrowIfCancellationRequested();
            }).ConfigureAwait(false);
    }

    private async Task DisposeCoreAsync()
    {
        Kill();
        await Exited.ConfigureAwait(false);
        await _capture.CloseAsync().ConfigureAwait(false);
        await _disks.DisposeAsync().ConfigureAwait(false);
        _capture.Dispose();
        await _reclaimer.TakeAsync(_shell).ConfigureAwait(false);
    }

    /// <summary>What a machine is made of.</summary>
    private sealed record Parts(
        MachineShell Shell,
        FlatGuestLayout Layout,
        string Name,
        IReadOnlyList<MachineDisk> Disks,
        KvmSnapshot? Origin,
        Action<KvmVcpu, int> Initialize);
}
