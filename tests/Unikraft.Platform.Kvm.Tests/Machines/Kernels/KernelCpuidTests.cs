using Unikraft.Platform.Kvm.Interop;
using Unikraft.Platform.Kvm.Machines.Kernels;

namespace Unikraft.Platform.Kvm.Tests.Machines.Kernels;

/// <summary>What kernels are told of their processors, of lists as hosts of Intel and AMD have them.</summary>
public sealed class KernelCpuidTests
{
    private const uint Intel = 0x756E_6547;
    private const uint Amd = 0x6874_7541;
    private const uint All = uint.MaxValue;

    [Theory]
    [InlineData(Intel)]
    [InlineData(Amd)]
    public void No_kernel_is_offered_virtualisation(uint vendor)
    {
        KvmCpuid2 cpuid = Create(vendor, index: 0, vcpus: 1);

        Assert.Equal(0u, Find(cpuid, 1)!.Value.Ecx & 1 << 5);
        Assert.Equal(0u, Find(cpuid, 0x8000_0001)!.Value.Ecx & 1 << 2);
        Assert.Null(Find(cpuid, 0x8000_000A));

        // All else is as the host has it.
        Assert.Equal(All, Find(cpuid, 7)!.Value.Ebx);
        Assert.Equal(All, Find(cpuid, 0x8000_0001)!.Value.Edx);
        Assert.Equal(All & ~(1u << 2) & (vendor == Amd ? ~(1u << 1) : All), Find(cpuid, 0x8000_0001)!.Value.Ecx);
    }

    [Theory]
    [InlineData(Intel, 0, 1)]
    [InlineData(Intel, 3, 4)]
    [InlineData(Amd, 0, 1)]
    [InlineData(Amd, 5, 8)]
    public void Each_vcpu_is_a_core_of_one_package(uint vendor, int index, int vcpus)
    {
        KvmCpuid2 cpuid = Create(vendor, index, vcpus);

        KvmCpuidEntry2 features = Find(cpuid, 1)!.Value;
        Assert.Equal(((uint)vcpus, (uint)index), (features.Ebx >> 16 & 0xFF, features.Ebx >> 24));
        Assert.Equal(vcpus > 1, (features.Edx & 1 << 28) != 0);
        Assert.NotEqual(0u, features.Ecx & 1u << 31);
        if (vendor == Amd)
        {
            Assert.Equal(vcpus > 1, (Find(cpuid, 0x8000_0001)!.Value.Ecx & 1 << 1) != 0);
            Assert.Equal((uint)(vcpus - 1), Find(cpuid, 0x8000_0008)!.Value.Ecx & 0xFF);
            Assert.Null(Find(cpuid, 0xB));
        }
        else
        {
            Assert.Equal((uint)(vcpus - 1), Find(cpuid, 4)!.Value.Eax >> 26);
            Assert.Equal((uint)vcpus, Find(cpuid, 0xB, index: 1)!.Value.Ebx);
            Assert.Equal((uint)index, Find(cpuid, 0xB, index: 1)!.Value.Edx);
        }
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void The_deadline_timer_is_there_when_the_host_has_it(bool hasDeadline)
    {
        KvmCpuid2 supported = ListOf(Intel, ecx: 0);

        KvmCpuid2 cpuid = KernelCpuid.Create(ref supported, index: 0, vcpus: 1, hasDeadline);

        Assert.Equal(hasDeadline, (Find(cpuid, 1)!.Value.Ecx & 1 << 24) != 0);
    }

    /// <summary>On Intel three entries are added.</summary>
    [Theory]
    [InlineData(Amd, KvmCpuid2.Capacity, true)]
    [InlineData(Intel, KvmCpuid2.Capacity - 3, true)]
    [InlineData(Intel, KvmCpuid2.Capacity - 2, false)]
    public void A_list_that_is_too_long_is_not_cut(uint vendor, int entries, bool fits)
    {
        KvmCpuid2 supported = default;
        for (int i = 0; i < entries; i++)
        {
            supported.Entries[(int)supported.Nent++] = new KvmCpuidEntry2 { Function = i == 0 ? 0 : 0x4000_0000 + (uint)i, Ebx = vendor };
        }

        if (fits)
        {
            Assert.Equal((uint)KvmCpuid2.Capacity, KernelCpuid.Create(ref supported, index: 0, vcpus: 1, hasTscDeadline: false).Nent);
        }
        else
        {
            HypervisorException error = Assert.Throws<HypervisorException>(() => KernelCpuid.Create(ref supported, index: 0, vcpus: 1, hasTscDeadline: false));
            Assert.Contains($"{KvmCpuid2.Capacity}", error.Message, StringComparison.Ordinal);
        }
    }

    private static KvmCpuid2 Create(uint vendor, int index, int vcpus)
    {
        KvmCpuid2 supported = ListOf(vendor, All);
        return KernelCpuid.Create(ref supported, index, vcpus, hasTscDeadline: true);
    }

    private static KvmCpuid2 ListOf(uint vendor, uint ecx)
    {
        KvmCpuid2 list = default;
        foreach (uint function in (uint[])[0, 1, 4, 7, 0xB, 0x1F, 0x8000_0001, 0x8000_0008, 0x8000_000A])
        {
            list.Entries[(int)list.Nent++] = new KvmCpuidEntry2 { Function = function, Eax = All, Ebx = function == 0 ? vendor : All, Ecx = ecx, Edx = All };
        }

        return list;
    }

    private static KvmCpuidEntry2? Find(in KvmCpuid2 cpuid, uint function, uint index = 0)
    {
        foreach (KvmCpuidEntry2 entry in ((ReadOnlySpan<KvmCpuidEntry2>)cpuid.Entries)[..(int)cpuid.Nent])
        {
            if (entry.Function == function && entry.Index == index)
            {
                return entry;
            }
        }

        return null;
    }
}
