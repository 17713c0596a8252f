using System.Text;
using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Kvm.Tests.Testing;

namespace Unikraft.Platform.Kvm.Tests.Machines.Kernels;

/// <summary>Types into the console of a machine.</summary>
internal static class Typing
{
    /// <summary>Types a line.</summary>
    internal static async Task TypeAsync(this IVirtualMachine machine, string line)
    {
        ReadOnlyMemory<byte> bytes = Encoding.UTF8.GetBytes(line + "\n");
        while (!bytes.IsEmpty)
        {
            int taken = await machine.WriteConsoleAsync(bytes).Guarded();
            Assert.NotEqual(0, taken);
            bytes = bytes[taken..];
        }
    }
}
