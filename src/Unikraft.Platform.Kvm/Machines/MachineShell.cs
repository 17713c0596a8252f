using Unikraft.Platform.Kvm.Interop;
using Unikraft.Platform.Kvm.Memory;
using Unikraft.Platform.Kvm.Vcpus;

namespace Unikraft.Platform.Kvm.Machines;

/// <summary>A VM that is nobody's yet: memory that is all zero, and vCPUs on threads that wait. Everything that takes long in making a machine.</summary>
internal sealed class MachineShell : IAsyncDisposable
{
    private readonly Lazy<Task> _attachment;

    private MachineShell(GuestMemory memory, Task<KvmVm> vm, VcpuThread[] threads)
    {
        Memory = memory;
        Vm = vm;
        Threads = threads;
        _attachment = new Lazy<Task>(AttachCoreAsync);
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
        VcpuThread[] threads = [.. Enumerable.Range(0, shape.Vcpus).Select(index => new VcpuThread(vm, index))];
        int started = 0;
        try
        {
            for (; started < threads.Length; started++)
            {
                threads[started].Start();
            }

            return new MachineShell(memory, vm, threads);
        }
        catch (Exception error)
        {
            MachineShell begun = new(memory, vm, threads[..started]);
            _ = begun.DisposeAsync().AsTask();
            throw new HypervisorException("The host refused a thread for a vCPU.", error);
        }
    }

    /// <summary>Puts the memory into the VM, unless it is there already.</summary>
    internal Task AttachAsync() => _attachment.Value;

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
