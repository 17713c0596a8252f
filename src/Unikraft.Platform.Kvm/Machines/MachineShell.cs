using Unikraft.Platform.Kvm.Interop;
using Unikraft.Platform.Kvm.Memory;
using Unikraft.Platform.Kvm.Vcpus;

namespace Unikraft.Platform.Kvm.Machines;

/// <summary>A VM that is nobody's yet: memory that is all zero, and vCPUs on threads that wait. Everything that takes long in making a machine.</summary>
internal sealed class MachineShell : IAsyncDisposable
{
    private readonly Lazy<Task> _attachment;

    private MachineShell(GuestMemory memory, Task<KvmVm> vm, VcpuThread[] threads, bool isAttached)
    {
        Memory = memory;
        Vm = vm;
        Threads = threads;
        _attachment = new Lazy<Task>(isAttached ? () => vm : AttachCoreAsync);
    }

    internal GuestMemory Memory { get; }

    internal Task<KvmVm> Vm { get; }

    internal IReadOnlyList<VcpuThread> Threads { get; }

    /// <summary>Begins to make a shell: the VM and the threads at once, for each takes as long as the other.</summary>
    /// <exception cref="HypervisorException">The host refused memory or a thread.</exception>
    internal static MachineShell Begin(KvmDevice device, MachineShape shape)
    {
        GuestMemory memory = new(shape.MemorySize, shape.SlotPages);
        Task<KvmVm> vm = Task.Run(device.CreateVm);
        return Begin(memory, vm, shape.Vcpus, static (vm, index) => vm.CreatePreparedVcpu(index), isAttached: false);
    }

    /// <summary>Begins to make a shell of another kind.</summary>
    /// <param name="memory">The memory, which is taken over.</param>
    /// <param name="vm">The VM.</param>
    /// <param name="vcpus">How many vCPUs it has.</param>
    /// <param name="makeVcpu">Makes each of them.</param>
    /// <param name="isAttached">Whether the VM comes with its memory.</param>
    /// <exception cref="HypervisorException">The host refused a thread.</exception>
    internal static MachineShell Begin(GuestMemory memory, Task<KvmVm> vm, int vcpus, Func<KvmVm, int, KvmVcpu> makeVcpu, bool isAttached)
    {
        VcpuThread[] threads = [.. Enumerable.Range(0, vcpus).Select(index => new VcpuThread(vm, vm => makeVcpu(vm, index)))];
        int started = 0;
        try
        {
            for (; started < threads.Length; started++)
            {
                threads[started].Start();
            }

            return new MachineShell(memory, vm, threads, isAttached);
        }
        catch (Exception error)
        {
            MachineShell begun = new(memory, vm, threads[..started], isAttached);
            _ = begun.DisposeAsync().AsTask();
            throw new HypervisorException("The host refused a thread for a vCPU.", error);
        }
    }

    /// <summary>Puts the memory into the VM, unless it is there already.</summary>
    internal Task AttachAsync() => _attachment.Value;

    /// <summary>Makes the machine whose shell this is, and gives its vCPUs to the threads. The shell belongs to it then, and ends here when it cannot be made.</summary>
    /// <param name="construct">Makes the machine.</param>
    /// <param name="finish">Does the rest, while the threads bring the vCPUs into their first state.</param>
    internal async ValueTask<TMachine> EquipAsync<TMachine>(
        Func<MachineShell, TMachine> construct,
        Func<TMachine, Task> finish)
        where TMachine : KvmMachine
    {
        TMachine machine;
        try
        {
            machine = construct(this);
        }
        catch
        {
            await DisposeAsync().ConfigureAwait(false);
            throw;
        }

        try
        {
            for (int i = 0; i < Threads.Count; i++)
            {
                Threads[i].Assign(machine.Vcpus[i]);
            }

            await finish(machine).ConfigureAwait(false);
            return machine;
        }
        catch
        {
            await machine.DisposeAsync().ConfigureAwait(false);
            throw;
        }
    }

    public async ValueTask DisposeAsync()
    {
        foreach (VcpuThread thread in Threads)
        {
            thread.Join();
        }

        await ((Task)Vm).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        if (Vm.IsCompletedSuccessfully)
        {
            KvmVm vm = await Vm.ConfigureAwait(false);
            vm.Dispose();
        }

        Memory.Dispose();
    }

    private async Task AttachCoreAsync()
    {
        KvmVm vm = await Vm.ConfigureAwait(false);
        vm.SetMemory(Memory);
    }
}
