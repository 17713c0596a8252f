using System.Buffers.Binary;
using Unikraft.Platform.Kvm.Interop;
using Unikraft.Platform.Kvm.Tests.Snapshots;
using Unikraft.Platform.Kvm.Vcpus;

namespace Unikraft.Platform.Kvm.Tests.Vcpus;

/// <summary>Exits of a guest after which its vCPU cannot go on, as KVM writes them into the page that it shares.</summary>
public sealed class VcpuFailureTests
{
    private const int PageBytes = 3 * 4096;
    private const ulong Anything = 0x21;

    [Theory]
    [InlineData(KvmConstants.ExitInternalError, 3, "internal error of vCPU 2, suberror 3")]
    [InlineData(KvmConstants.ExitFailEntry, Anything, "refused to enter the guest on vCPU 2, hardware reason 0x21")]
    [InlineData(KvmConstants.ExitUnknown, Anything, "vCPU 2 left the guest for the unexpected reason 0")]
    [InlineData(KvmConstants.ExitHlt, Anything, "vCPU 2 left the guest for the unexpected reason 5")]
    [InlineData(24, Anything, "vCPU 2 left the guest for the unexpected reason 24")]
    public void An_exit_that_ends_a_machine_says_why(uint reason, ulong detail, string text)
    {
        byte[] bytes = new byte[PageBytes];
        BinaryPrimitives.WriteUInt32LittleEndian(bytes.AsSpan(KvmRunPage.ExitReasonOffset), reason);
        BinaryPrimitives.WriteUInt64LittleEndian(bytes.AsSpan(KvmRunPage.InternalSuberrorOffset), detail);
        using TestDirectory folder = new();
        string file = Path.Combine(folder.Path, "kvm_run");
        File.WriteAllBytes(file, bytes);
        using DescriptorHandle descriptor = new(HostError.Check(Libc.Open(file, Libc.OpenReadWrite | Libc.OpenCloseOnExec), "open"));
        using KvmRunPage page = new(descriptor, PageBytes);

        HypervisorException error = Assert.IsType<HypervisorException>(Vcpu.FailureOf(page, index: 2).Error);
        Assert.Contains(text, error.Message, StringComparison.Ordinal);
    }
}
