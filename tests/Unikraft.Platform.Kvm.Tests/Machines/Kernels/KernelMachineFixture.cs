using System.Text;
using Unikraft.Platform.Kvm.Boot.Kernels;
using Unikraft.Platform.Kvm.Interop;
using Unikraft.Platform.Kvm.Machines.Kernels;
using Unikraft.Platform.Kvm.Tests.Testing;

namespace Unikraft.Platform.Kvm.Tests.Machines.Kernels;

/// <summary>A machine with a kernel, and what it says.</summary>
internal sealed class KernelMachineFixture : IAsyncDisposable
{
    private readonly KvmDevice _device;

    private KernelMachineFixture(KvmDevice device, KernelMachine machine, RecordingMonitor monitor)
    {
        _device = device;
        Machine = machine;
        Monitor = monitor;
    }

    internal KernelMachine Machine { get; }

    internal RecordingMonitor Monitor { get; }

    internal Task<KernelExit> Exited => Machine.Exited.Guarded();

    internal static async Task<KernelMachineFixture> CreateAsync(KernelBoot boot, int vcpus = 1, long memoryMb = 32)
    {
        KvmDevice device = KvmDevice.Open();
        RecordingMonitor monitor = new();
        KickSignal signal = KickSignal.Install(KvmOptions.DefaultKickSignalOffset);
        try
        {
            KernelMachine machine = await KernelMachine.CreateAsync(device, signal, boot, vcpus, memoryMb << 20, monitor, CancellationToken.None).Guarded();
            return new KernelMachineFixture(device, machine, monitor);
        }
        catch
        {
            device.Dispose();
            throw;
        }
    }

    internal async Task TypeAsync(string line)
    {
        ReadOnlyMemory<byte> bytes = Encoding.UTF8.GetBytes(line + "\n");
        while (!bytes.IsEmpty)
        {
            int taken = await Machine.WriteConsoleAsync(bytes).Guarded();
            Assert.NotEqual(0, taken);
            bytes = bytes[taken..];
        }
    }

    public async ValueTask DisposeAsync()
    {
        await Machine.DisposeAsync().Guarded();
        _device.Dispose();
    }
}
