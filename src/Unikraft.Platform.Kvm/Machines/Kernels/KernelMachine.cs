using System.Globalization;
using System.Security.Cryptography;
using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Kvm.Boot;
using Unikraft.Platform.Kvm.Boot.Acpi;
using Unikraft.Platform.Kvm.Boot.Kernels;
using Unikraft.Platform.Kvm.Devices;
using Unikraft.Platform.Kvm.Devices.Virtio;
using Unikraft.Platform.Kvm.Interop;
using Unikraft.Platform.Kvm.Memory;
using Unikraft.Platform.Kvm.Snapshots;
using Unikraft.Platform.Kvm.Vcpus;

namespace Unikraft.Platform.Kvm.Machines.Kernels;

/// <summary>
/// A machine that runs a kernel: interrupt controllers and timers in KVM, RAM around the gap below 4 GiB, a serial port as its console, and ACPI to find
/// all of that, to be asked to shut down and to power off.
/// </summary>
internal sealed class KernelMachine : KvmMachine
{
    /// <summary>Four pages below the top of the gap, where no device is.</summary>
    private const long ReservedAddress = 0xFFFB_C000;

    private const uint MiscEnable = 0x1A0;
    private const ulong FastStrings = 1;

    private readonly KernelDevices _devices;
    private readonly TimeProvider _timeProvider;
    private readonly KvmSnapshot? _origin;

    private KernelMachine(KvmHost host, Parts parts, KernelDevices devices, KvmSnapshot? origin)
        : base(host, parts) => (_devices, _timeProvider, _origin) = (devices, host.TimeProvider, origin);

    public override bool HasReachedMain => _devices.HasReachedMain;

    /// <summary>Makes a machine and loads a kernel. Its first vCPU stands before the first instruction.</summary>
    /// <exception cref="ImageException">Kernel and initrd do not fit into the memory.</exception>
    /// <exception cref="InvalidRequestException">The command line cannot be passed on.</exception>
    /// <exception cref="HypervisorException">The host refused something.</exception>
    internal static async ValueTask<KernelMachine> BootAsync(
        KvmHost host,
        KernelBoot boot,
        MachineConfiguration configuration,
        IMachineMonitor monitor,
        CancellationToken cancellationToken)
    {
        cancellationToken.ThrowIfCancellationRequested();
        int vcpus = configuration.Vcpus;
        bool hasTscDeadline = host.Device.Has(KvmConstants.CapTscDeadlineTimer);
        (KvmCpuid2 Cpuid, uint[] Msrs, int TscKhz)[] identities = new (KvmCpuid2, uint[], int)[vcpus];
        for (int i = 0; i < vcpus; i++)
        {
            identities[i].Cpuid = KernelCpuid.Create(in host.Device.SupportedCpuid, i, vcpus, hasTscDeadline);
            identities[i].TscKhz = host.Tsc.Khz;
        }

        GuestMemory memory = NewMemory((long)configuration.MemoryMb << 20);
        KernelEntry entry;
        try
        {
            AcpiTables tables = AcpiTables.Create(KernelLayout.AcpiTables, vcpus, [.. configuration.Disks.Select(static disk => Window(disk.Slot)), EntropyWindow]);
            entry = KernelLoader.Load(memory, boot, KernelLayout.AcpiTables);
            memory.Write(KernelLayout.AcpiTables, tables.Bytes);
            memory.Write(KernelLayout.ResetVector, KernelLayout.ResetCode);
            memory.Write(KernelLayout.GenerationId, RandomNumberGenerator.GetBytes(KernelLayout.GenerationIdSize));
        }
        catch
        {
            memory.Dispose();
            throw;
        }

        return await MakeAsync(
            host,
            memory,
            identities,
            shell => Construct(host, shell, configuration.Name, boot.Image.RunningRule, Enter, monitor, configuration.Disks, identities, origin: null),
            cancellationToken).ConfigureAwait(false);

        void Enter(KvmVcpu vcpu, int index)
        {
            identities[index].Msrs = KernelRegisters.FindMsrs(vcpu, host.Device.SavedMsrs);
            KvmMsrs msrs = new() { NMsrs = 1, First = new KvmMsrEntry { Index = MiscEnable, Data = FastStrings } };
            vcpu.Set(ref msrs);
            if (index == 0)
            {
                // The others wait for the first one to start them.
                entry.Apply(vcpu);
            }
        }
    }

    /// <summary>Makes a machine that continues from a snapshot.</summary>
    /// <exception cref="IncompatibleMachineException">The time stamp counter cannot run as fast here as the guest was told.</exception>
    /// <exception cref="HypervisorException">The host refused something.</exception>
    internal static async ValueTask<KernelMachine> RestoreAsync(
        KvmHost host,
        KvmSnapshot snapshot,
        KernelState kernel,
        Guid uuid,
        IMachineMonitor monitor,
        IReadOnlyList<MachineDisk> disks,
        CancellationToken cancellationToken)
    {
        cancellationToken.ThrowIfCancellationRequested();
        KvmDisks.Require(snapshot.Disks, disks);
        int? tscKhz = host.Tsc.ScaleFor(kernel.TscKhz, snapshot.Path);
        GuestMemory memory = NewMemory(snapshot.Layout.MemorySize);
        try
        {
            using PageMap map = snapshot.ShareMemory();
            memory.Install(map);
            memory.Write(KernelLayout.GenerationId, RandomNumberGenerator.GetBytes(KernelLayout.GenerationIdSize));
        }
        catch
        {
            memory.Dispose();
            throw;
        }

        (KvmCpuid2 Cpuid, uint[] Msrs, int TscKhz)[] identities =
        [
            .. snapshot.Vcpus.Select(vcpu => (vcpu.Kernel!.Cpuid, vcpu.Kernel.List, kernel.TscKhz)),
        ];

        // The same for all vCPUs, although they were asked one after the other: KVM then keeps them in step.
        ulong tsc = kernel.Advance(snapshot.Vcpus[0].Kernel!.Tsc, host.TimeProvider.GetUtcNow());
        return await MakeAsync(
            host,
            memory,
            identities,
            shell => Construct(
                host,
                shell,
                uuid.ToString("D"),
                kernel.Rule,
                Enter,
                monitor,
                disks,
                identities,
                snapshot),
            cancellationToken).ConfigureAwait(false);

        void Enter(KvmVcpu vcpu, int index)
        {
            if (tscKhz is { } khz)
            {
                // Before the counter is set, which KVM computes from the frequency.
                vcpu.SetTscKhz(khz);
            }

            snapshot.Vcpus[index].RestoreKernel(vcpu, tsc);
        }
    }

    /// <summary>Presses the power button.</summary>
    public override void RequestStop()
    {
        if (!Exited.IsCompleted)
        {
            _devices.Power.PressPowerButton();
        }
    }

    /// <summary>Sends a non-maskable interrupt, on which a kernel panics if it was told to.</summary>
    public override void KillApp() => Control.RequestNmi(vcpu: 0);

    public override ValueTask<int> WriteConsoleAsync(ReadOnlyMemory<byte> input, CancellationToken cancellationToken = default) =>
        _devices.WriteConsoleAsync(input, cancellationToken);

    private protected override async Task StartCoreAsync()
    {
        // A vCPU that is not there yet cannot be sent the interrupt that starts it.
        await Control.Ready.ConfigureAwait(false);
        if (_origin is { Kernel: { } kernel } origin)
        {
            _devices.Restore(kernel, origin.Device, _timeProvider.GetUtcNow());
            Disks.Restore(origin.Disks);
        }

        Disks.Release();
        Control.Start();
    }

    private protected override void Disconnect() => _devices.CutLines();

    private static KernelMachine Construct(
        KvmHost host,
        MachineShell shell,
        string name,
        RunningRule rule,
        Action<KvmVcpu, int> initialize,
        IMachineMonitor monitor,
        IReadOnlyList<MachineDisk> attached,
        (KvmCpuid2 Cpuid, uint[] Msrs, int TscKhz)[] identities,
        KvmSnapshot? origin)
    {
        KernelDevices? devices = null;
        GuestClock clock = new(host.TimeProvider, origin?.Device.Monotonic ?? 0);
        RunControl control = new(clock, static _ => { }, () => devices!.Input.Close());
        devices = new KernelDevices(shell.Vm, rule, monitor, control, clock, shell.Memory) { Identities = identities };
        KvmDisks disks = new(shell.Memory, attached, control, monitor, devices.NewDiskLine, devices.Entropy);
        disks.Attach(devices.Memory, KernelLayout.DisksAddress);
        FlatGuestLayout layout = LayoutOf(shell.Memory.Size, shell.Threads.Count);
        return new KernelMachine(host, Assemble(host, shell, control, devices.Memory, devices, disks, name, initialize, layout, origin), devices, origin);
    }

    /// <summary>To a kernel all of its memory is the same.</summary>
    private static FlatGuestLayout LayoutOf(long memorySize, int vcpus) => new([], stacksStart: 0, memorySize, vcpus);

    private static VirtioWindow EntropyWindow =>
        new(KernelLayout.EntropyAddress, (uint)VirtioDevice.WindowLength, KernelLayout.EntropyInterrupt);

    private static VirtioWindow Window(int slot) => new(
        KernelLayout.DisksAddress + (uint)slot * (uint)VirtioDevice.WindowLength,
        (uint)VirtioDevice.WindowLength,
        KernelLayout.FirstDiskInterrupt + (uint)slot);

    private static GuestMemory NewMemory(long size) => new(size, (int)(KernelMemoryMap.GapStart >> PageSize.Shift)) { Gap = KernelMemoryMap.Gap };

    private static async ValueTask<KernelMachine> MakeAsync(
        KvmHost host,
        GuestMemory memory,
        (KvmCpuid2 Cpuid, uint[] Msrs, int TscKhz)[] identities,
        Func<MachineShell, KernelMachine> construct,
        CancellationToken cancellationToken)
    {
        MachineShell shell = MachineShell.Begin(
            memory,
            Task.Run(() => NewVm(host.Device, memory), CancellationToken.None),
            identities.Length,
            (vm, index) => vm.CreateVcpu(index, vcpu =>
            {
                KvmCpuid2 cpuid = identities[index].Cpuid;
                vcpu.Set(ref cpuid);
            }),
            isAttached: true);
        return await shell
            .EquipAsync(construct, machine => machine.Control.Ready.WaitAsync(cancellationToken))
            .ConfigureAwait(false);
    }

    private static KvmVm NewVm(KvmDevice device, GuestMemory memory)
    {
        KvmVm vm = device.CreateVm();
        try
        {
            foreach (MemorySlot slot in memory.Slots)
            {
                long offset = (long)slot.FirstPage << PageSize.Shift;
                long address = offset < KernelMemoryMap.GapStart ? offset : offset - KernelMemoryMap.GapStart + KernelMemoryMap.GapEnd;
                vm.SetMemory(memory, (uint)slot.Id, address, offset, (long)slot.Pages << PageSize.Shift);
            }

            vm.CreateInterruptControllers(ReservedAddress);
            return vm;
        }
        catch
        {
            vm.Dispose();
            throw;
        }
    }
}
