using Unikraft.Platform.Kvm.Interop;
using Unikraft.Platform.Kvm.Vcpus;

namespace Unikraft.Platform.Kvm.Tests.Machines.Kernels;

/// <summary>Which MSRs are saved of a kernel.</summary>
public sealed class KernelRegistersTests
{
    [Fact]
    public void The_msrs_that_a_vcpu_has_are_found_as_long_as_there_is_room_for_them()
    {
        uint[] candidates = [.. Enumerable.Range(0, 2 * KvmAllMsrs.Capacity + 2).Select(static index => (uint)index)];

        uint[] found = KernelRegisters.FindMsrs(candidates[..^2], static index => index % 2 == 1);
        Assert.Equal(KvmAllMsrs.Capacity, found.Length);
        Assert.All(found, static index => Assert.Equal(1u, index % 2));

        HypervisorException error = Assert.Throws<HypervisorException>(() => KernelRegisters.FindMsrs(candidates, static index => index % 2 == 1));
        Assert.Contains($"{KvmAllMsrs.Capacity + 1} MSRs", error.Message, StringComparison.Ordinal);
        Assert.Contains($"{KvmAllMsrs.Capacity}:", error.Message, StringComparison.Ordinal);
    }
}
