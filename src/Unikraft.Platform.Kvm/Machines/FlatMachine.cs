using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Kvm.Boot;
using Unikraft.Platform.Kvm.Devices;
using Unikraft.Platform.Kvm.Interop;
using Unikraft.Platform.Kvm.Memory;
using Unikraft.Platform.Kvm.Snapshots;
using Unikraft.Platform.Kvm.Vcpus;

namespace Unikraft.Platform.Kvm.Machines;

/// <summary>A flat guest on KVM, with the platform's own devices.</summary>
internal sealed class FlatMachine : KvmMachine
{
    private readonly PlatformDevice _platform;
    private readonly FaultDevice _faults;

    private FlatMachine(KvmHost host, Parts parts, PlatformDevice platform, FaultDevice faults)
        : base(host, parts) => (_platform, _faults) = (platform, faults);

    public override bool HasReachedMain => _platform.HasReachedMain;

    /// <summary>Boots an image.</summary>
    internal static async ValueTask<FlatMachine> BootAsync(
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
            monitor,
            machine =>
            {
                FlatGuestLoader.Load(machine.Memory, image, layout, strings, configuration.Uuid, name);
                InfoPage.WriteDisks(machine.Memory, configuration.Disks);
                InfoPage.WriteTscKhz(machine.Memory, host.Tsc.Khz);
            },
            cancellationToken).ConfigureAwait(false);
    }

    /// <summary>Makes a machine that continues from a snapshot.</summary>
    internal static async ValueTask<FlatMachine> RestoreAsync(
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
            monitor,
            machine =>
            {
                machine.Memory.Install(map);
                InfoPage.WriteIdentity(machine.Memory, uuid);
                InfoPage.WriteDisks(machine.Memory, disks);

                // The snapshot may come from another host, and this guest asks here how fast its counter runs whenever it wants to know.
                InfoPage.WriteTscKhz(machine.Memory, host.Tsc.Khz);
                machine.Control.Lower(GuestEvents.StopRequested);
                machine.Disks.Restore(snapshot.Disks);
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

    public override void RequestStop() => Control.Raise(GuestEvents.StopRequested);

    public override void KillApp()
    {
        _faults.ExpectKill();
        Control.RequestNmi(vcpu: 0);
    }

    public override ValueTask<int> WriteConsoleAsync(ReadOnlyMemory<byte> input, CancellationToken cancellationToken = default) =>
        _platform.Input.WriteAsync(input, cancellationToken);

    private protected override Task StartCoreAsync()
    {
        Disks.Release();

        // The threads may still be bringing their vCPUs into their first state: who waited for that first would start later.
        Control.Start();
        return Control.Ready;
    }

    private static FlatMachine Construct(
        KvmHost host,
        MachineShell shell,
        FlatGuestLayout layout,
        string name,
        IReadOnlyList<MachineDisk> attached,
        KvmSnapshot? origin,
        Action<KvmVcpu, int> initialize,
        IMachineMonitor monitor)
    {
        GuestMemory memory = shell.Memory;
        PlatformDevice? platform = null;
        GuestClock clock = new(host.TimeProvider, origin?.Device.Monotonic ?? 0);
        RunControl control = new(clock, events => InfoPage.WriteEvents(memory, events), () => platform!.Input.Close());
        platform = new PlatformDevice(memory, layout, monitor, control, clock, new ConsoleInput(control));
        FaultDevice faults = new(memory, layout, platform, control);
        KvmDisks disks = new(memory, attached, control, monitor);
        platform.ServeDisks = disks.Serve;

        MmioBus bus = new();
        bus.Attach(FlatGuestLayout.DevicePhysicalAddress, PageSize.Bytes, platform);
        bus.Attach(FlatGuestLayout.FaultPhysicalAddress, PageSize.Bytes, faults);
        disks.Attach(bus);
        Parts parts = Assemble(host, shell, control, bus, new FlatGuest(platform, faults, control), disks, name, initialize, layout, origin);
        if (origin is not null)
        {
            for (int i = 0; i < parts.Vcpus.Length; i++)
            {
                parts.Vcpus[i].Restore(origin.Vcpus[i]);
            }
        }

        return new FlatMachine(host, parts, platform, faults);
    }

    private static async ValueTask<FlatMachine> MakeAsync(
        KvmHost host,
        FlatGuestLayout layout,
        PageMap? memory,
        string name,
        IReadOnlyList<MachineDisk> disks,
        KvmSnapshot? origin,
        Action<KvmVcpu, int> initialize,
        IMachineMonitor monitor,
        Action<FlatMachine> load,
        CancellationToken cancellationToken)
    {
        cancellationToken.ThrowIfCancellationRequested();
        MachineShell shell = host.Shells.Rent(new MachineShape(layout.MemorySize, layout.Vcpus, host.SlotPages), memory);
        return await shell.EquipAsync(
            shell => Construct(host, shell, layout, name, disks, origin, initialize, monitor),
            async machine =>
            {
                load(machine);
                await shell.AttachAsync().ConfigureAwait(false);
                cancellationToken.ThrowIfCancellationRequested();
            }).ConfigureAwait(false);
    }
}
