using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Unikraft.Platform.Kvm.Interop;

namespace Unikraft.Platform.Kvm.Vcpus;

/// <summary>What the state of a vCPU has beyond that of a flat guest when it runs a kernel: its local APIC, whether it runs, MSRs, and what CPUID answers.</summary>
internal sealed class KernelRegisters
{
    internal const uint TimeStampCounter = 0x10;

    /// <summary>Set last: KVM takes a deadline only when the local APIC says that there is one.</summary>
    private const uint TscDeadline = 0x6E0;

    private readonly uint[] _list;

    private KvmCpuid2 _cpuid;
    private KvmLapicState _lapic;
    private KvmMpState _mpState;
    private KvmAllMsrs _msrs;
    private KvmVcpu? _vcpu;

    /// <param name="cpuid">What CPUID answers.</param>
    /// <param name="msrs">The MSRs to save.</param>
    internal KernelRegisters(in KvmCpuid2 cpuid, uint[] msrs)
    {
        _cpuid = cpuid;
        _list = msrs;
    }

    /// <summary>The number of bytes of <see cref="Write"/>.</summary>
    internal static int Size { get; } =
        Unsafe.SizeOf<KvmLapicState>() + Unsafe.SizeOf<KvmMpState>() + Unsafe.SizeOf<KvmAllMsrs>() + Unsafe.SizeOf<KvmCpuid2>();

    /// <summary>What CPUID answers.</summary>
    internal ref readonly KvmCpuid2 Cpuid => ref _cpuid;

    /// <summary>The MSRs that were saved.</summary>
    internal uint[] List => _list;

    /// <summary>The time stamp counter when it was saved.</summary>
    internal ulong Tsc
    {
        get
        {
            foreach (ref readonly KvmMsrEntry entry in Entries)
            {
                if (entry.Index == TimeStampCounter)
                {
                    return entry.Data;
                }
            }

            return 0;
        }
    }

    /// <summary>The vCPU that stands still, whose state can be taken when all do.</summary>
    internal KvmVcpu Standing
    {
        get => _vcpu ?? throw new InvalidOperationException("The vCPU does not stand still.");
        set => _vcpu = value;
    }

    private ReadOnlySpan<KvmMsrEntry> Entries => ((ReadOnlySpan<KvmMsrEntry>)_msrs.Entries)[..(int)_msrs.NMsrs];

    /// <summary>Finds out which MSRs of KVM's list a vCPU has. Its CPUID has been set.</summary>
    /// <exception cref="HypervisorException">There are more than a snapshot has room for.</exception>
    internal static uint[] FindMsrs(KvmVcpu vcpu, IEnumerable<uint> candidates) => FindMsrs(candidates, index =>
    {
        KvmAllMsrs one = new() { NMsrs = 1 };
        one.Entries[0].Index = index;
        return vcpu.Get(ref one) == 1;
    });

    /// <inheritdoc cref="FindMsrs(KvmVcpu, IEnumerable{uint})"/>
    internal static uint[] FindMsrs(IEnumerable<uint> candidates, Func<uint, bool> has)
    {
        uint[] found = [.. candidates.Where(has)];
        return found.Length <= KvmAllMsrs.Capacity
            ? found
            : throw new HypervisorException(
                $"A vCPU has {found.Length} MSRs, and a snapshot has room for {KvmAllMsrs.Capacity}: without the others its kernel could not go on.");
    }

    /// <summary>Makes a state of what <see cref="Write"/> wrote; null when it could not have written it.</summary>
    internal static KernelRegisters? Read(ReadOnlySpan<byte> source)
    {
        KvmCpuid2 cpuid = MemoryMarshal.Read<KvmCpuid2>(source[^Unsafe.SizeOf<KvmCpuid2>()..]);
        KvmLapicState lapic = MemoryMarshal.Read<KvmLapicState>(source);
        source = source[Unsafe.SizeOf<KvmLapicState>()..];
        KvmMpState mpState = MemoryMarshal.Read<KvmMpState>(source);
        KvmAllMsrs msrs = MemoryMarshal.Read<KvmAllMsrs>(source[Unsafe.SizeOf<KvmMpState>()..]);
        if (cpuid.Nent > KvmCpuid2.Capacity || msrs.NMsrs > KvmAllMsrs.Capacity)
        {
            return null;
        }

        uint[] list = [.. ((ReadOnlySpan<KvmMsrEntry>)msrs.Entries)[..(int)msrs.NMsrs].ToArray().Select(static entry => entry.Index)];
        return new KernelRegisters(in cpuid, list) { _lapic = lapic, _mpState = mpState, _msrs = msrs };
    }

    internal void Write(Span<byte> destination)
    {
        MemoryMarshal.Write(destination, in _lapic);
        destination = destination[Unsafe.SizeOf<KvmLapicState>()..];
        MemoryMarshal.Write(destination, in _mpState);
        destination = destination[Unsafe.SizeOf<KvmMpState>()..];
        MemoryMarshal.Write(destination, in _msrs);
        MemoryMarshal.Write(destination[Unsafe.SizeOf<KvmAllMsrs>()..], in _cpuid);
    }

    /// <summary>Takes the state, before anything else of the vCPU: KVM carries out what other vCPUs have sent it.</summary>
    internal void SaveRunState() => Standing.Get(ref _mpState);

    /// <summary>Takes the rest.</summary>
    internal void Save()
    {
        Standing.Get(ref _lapic);
        _msrs.NMsrs = (uint)_list.Length;
        for (int i = 0; i < _list.Length; i++)
        {
            _msrs.Entries[i] = new KvmMsrEntry { Index = _list[i] };
        }

        int read = Standing.Get(ref _msrs);
        if (read != _list.Length)
        {
            throw new HypervisorException($"KVM does not let MSR 0x{_list[read]:x} be read any more.");
        }

        _vcpu = null;
    }

    /// <summary>Gives a vCPU its MSRs and its local APIC. Its segment and control registers are set.</summary>
    /// <param name="vcpu">The vCPU.</param>
    /// <param name="tsc">What the time stamp counter has become.</param>
    internal void Restore(KvmVcpu vcpu, ulong tsc)
    {
        KvmAllMsrs msrs = default;
        KvmAllMsrs deadline = default;
        foreach (ref readonly KvmMsrEntry entry in Entries)
        {
            ref KvmAllMsrs to = ref entry.Index == TscDeadline ? ref deadline : ref msrs;
            to.Entries[(int)to.NMsrs++] = entry.Index == TimeStampCounter ? entry with { Data = tsc } : entry;
        }

        Set(vcpu, in msrs);
        KvmLapicState lapic = _lapic;
        vcpu.Set(ref lapic);
        Set(vcpu, in deadline);
        KvmMpState mpState = _mpState;
        vcpu.Set(ref mpState);
    }

    private static void Set(KvmVcpu vcpu, in KvmAllMsrs all)
    {
        ReadOnlySpan<KvmMsrEntry> rest = ((ReadOnlySpan<KvmMsrEntry>)all.Entries)[..(int)all.NMsrs];
        while (!rest.IsEmpty)
        {
            KvmAllMsrs batch = new() { NMsrs = (uint)rest.Length };
            rest.CopyTo(batch.Entries);
            rest = rest[vcpu.Set(ref batch)..];
            if (!rest.IsEmpty)
            {
                // Some can only be read, which is as good as set when the value is there already.
                KvmAllMsrs present = new() { NMsrs = 1 };
                present.Entries[0].Index = rest[0].Index;
                if (vcpu.Get(ref present) != 1 || present.Entries[0].Data != rest[0].Data)
                {
                    throw new HypervisorException($"KVM does not let MSR 0x{rest[0].Index:x} be set to 0x{rest[0].Data:x}. The snapshot comes from a host with another CPU or kernel.");
                }

                rest = rest[1..];
            }
        }
    }
}
