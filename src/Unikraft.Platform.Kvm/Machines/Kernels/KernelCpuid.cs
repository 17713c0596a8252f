using System.Numerics;
using Unikraft.Platform.Kvm.Interop;

namespace Unikraft.Platform.Kvm.Machines.Kernels;

/// <summary>What CPUID answers in a machine with a kernel: all that KVM supports but virtualisation, on one package of as many cores as there are vCPUs.</summary>
/// <remarks>Leaves and bits: Intel SDM volume 2, CPUID; AMD64 APM volume 3, appendix E.</remarks>
internal static class KernelCpuid
{
    private const uint Vendor = 0;
    private const uint Features = 1;
    private const uint CacheParameters = 4;
    private const uint ExtendedTopology = 0xB;
    private const uint ExtendedTopologyV2 = 0x1F;
    private const uint ExtendedFeatures = 0x8000_0001;
    private const uint AddressSizes = 0x8000_0008;
    private const uint SecureVirtualMachine = 0x8000_000A;

    // A snapshot has nothing of a guest within a guest.
    private const uint Vmx = 1u << 5;
    private const uint Svm = 1u << 2;

    private const uint TscDeadlineTimer = 1u << 24;
    private const uint Hypervisor = 1u << 31;
    private const uint HyperThreading = 1u << 28;
    private const uint LegacyCores = 1u << 1;
    private const uint AmdVendor = 0x6874_7541;

    private const int CoresShift = 26;
    private const uint CoresMask = 0x3F;
    private const uint AmdCoresMask = 0xF0FF;
    private const uint ThreadLevel = 1;
    private const uint CoreLevel = 2;
    private const int LevelTypeShift = 8;
    private const uint SignificantIndex = 1;

    /// <summary>Makes the answers for one vCPU.</summary>
    /// <param name="supported">What KVM supports.</param>
    /// <param name="index">The number of the vCPU, which is its APIC id.</param>
    /// <param name="vcpus">The number of vCPUs.</param>
    /// <param name="hasTscDeadline">Whether KVM's local APIC has a deadline timer, which the list of KVM leaves out.</param>
    /// <exception cref="HypervisorException">There are too many.</exception>
    internal static KvmCpuid2 Create(ref readonly KvmCpuid2 supported, int index, int vcpus, bool hasTscDeadline)
    {
        KvmCpuid2 result = default;
        bool isAmd = false;
        foreach (ref readonly KvmCpuidEntry2 from in ((ReadOnlySpan<KvmCpuidEntry2>)supported.Entries)[..(int)supported.Nent])
        {
            KvmCpuidEntry2 entry = from;
            switch (entry.Function)
            {
                case Vendor:
                    isAmd = entry.Ebx == AmdVendor;
                    break;
                case Features:
                    entry.Ebx = entry.Ebx & 0xFFFF | (uint)vcpus << 16 | (uint)index << 24;
                    entry.Ecx = entry.Ecx & ~Vmx | Hypervisor | (hasTscDeadline ? TscDeadlineTimer : 0);
                    entry.Edx = vcpus > 1 ? entry.Edx | HyperThreading : entry.Edx & ~HyperThreading;
                    break;
                case CacheParameters:
                    entry.Eax = entry.Eax & ~(CoresMask << CoresShift) | (uint)(vcpus - 1) << CoresShift;
                    break;
                case SecureVirtualMachine:
                    continue;
                case ExtendedTopology or ExtendedTopologyV2:
                    // Written anew below, for KVM tells of the host's processors.
                    continue;
                case ExtendedFeatures:
                    entry.Ecx &= ~Svm;
                    if (isAmd)
                    {
                        entry.Ecx = vcpus > 1 ? entry.Ecx | LegacyCores : entry.Ecx & ~LegacyCores;
                    }

                    break;
                case AddressSizes when isAmd:
                    entry.Ecx = entry.Ecx & ~AmdCoresMask | (uint)(vcpus - 1);
                    break;
            }

            Add(ref result, entry);
        }

        if (!isAmd)
        {
            AddTopology(ref result, index, vcpus);
        }

        return result;
    }

    private static void AddTopology(ref KvmCpuid2 cpuid, int index, int vcpus)
    {
        uint bits = (uint)BitOperations.Log2(BitOperations.RoundUpToPowerOf2((uint)vcpus));
        KvmCpuidEntry2 level = new() { Function = ExtendedTopology, Flags = SignificantIndex, Edx = (uint)index };
        Add(ref cpuid, level with { Ebx = 1, Ecx = ThreadLevel << LevelTypeShift });
        Add(ref cpuid, level with { Index = 1, Eax = bits, Ebx = (uint)vcpus, Ecx = 1 | CoreLevel << LevelTypeShift });
        Add(ref cpuid, level with { Index = 2, Ecx = 2 });
    }

    private static void Add(ref KvmCpuid2 cpuid, KvmCpuidEntry2 entry)
    {
        if (cpuid.Nent == KvmCpuid2.Capacity)
        {
            // What is left out a kernel takes to be missing, and what comes last is how its vCPUs are told apart.
            throw new HypervisorException($"KVM supports more than the {KvmCpuid2.Capacity} entries of CPUID that a kernel can be given.");
        }

        cpuid.Entries[(int)cpuid.Nent++] = entry;
    }
}
