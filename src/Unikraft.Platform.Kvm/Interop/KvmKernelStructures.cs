using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace Unikraft.Platform.Kvm.Interop;

// Structures of linux/kvm.h that only machines with a kernel need. A test compares size and every offset with the header.

/// <summary><c>struct kvm_lapic_state</c>.</summary>
[InlineArray(Size)]
internal struct KvmLapicState
{
    internal const int Size = 0x400;

    private byte _first;
}

/// <summary><c>struct kvm_mp_state</c>.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct KvmMpState
{
    internal uint MpState;
}

/// <summary><c>struct kvm_irqchip</c>.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct KvmIrqchip
{
    internal uint ChipId;
    internal uint Pad;
    internal State Chip;

    [InlineArray(512)]
    internal struct State
    {
        private byte _first;
    }
}

/// <summary><c>struct kvm_ioapic_state</c>: what <see cref="KvmIrqchip.Chip"/> holds of the I/O APIC.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct KvmIoapicState
{
    /// <summary>The number of the I/O APIC among the interrupt controllers.</summary>
    internal const uint ChipId = KvmConstants.IrqchipIoapic;

    private const ulong Masked = 1 << 16;

    /// <summary>The bits of the delivery mode; with all of them set it is that of the older controllers.</summary>
    private const ulong DeliveryMode = 7 << 8;

    internal ulong BaseAddress;
    internal uint Ioregsel;
    internal uint Id;
    internal uint Irr;
    internal uint Pad;
    internal Redirections Redirtbl;

    /// <summary>Whether a device can interrupt. An input from the older controllers does not count: it is opened when a kernel hands over to the firmware.</summary>
    internal readonly bool HasOpenInput
    {
        get
        {
            foreach (ulong entry in Redirtbl)
            {
                if ((entry & Masked) == 0 && (entry & DeliveryMode) != DeliveryMode)
                {
                    return true;
                }
            }

            return false;
        }
    }

    [InlineArray(24)]
    internal struct Redirections
    {
        private ulong _first;
    }
}

/// <summary><c>struct kvm_pit_config</c>.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct KvmPitConfig
{
    internal uint Flags;
    internal Padding Pad;

    [InlineArray(15)]
    internal struct Padding
    {
        private uint _first;
    }
}

/// <summary><c>struct kvm_pit_state2</c>.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct KvmPitState2
{
    internal ChannelArray Channels;
    internal uint Flags;
    internal Padding Reserved;

    /// <summary>Three <c>struct kvm_pit_channel_state</c>.</summary>
    [InlineArray(3 * 3)]
    internal struct ChannelArray
    {
        private ulong _first;
    }

    [InlineArray(9)]
    internal struct Padding
    {
        private uint _first;
    }
}

/// <summary><c>struct kvm_clock_data</c>.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct KvmClockData
{
    internal ulong Clock;
    internal uint Flags;
    internal uint Pad0;
    internal ulong Realtime;
    internal ulong HostTsc;
    internal Padding Pad;

    [InlineArray(4)]
    internal struct Padding
    {
        private uint _first;
    }
}

/// <summary><c>struct kvm_msr_list</c> with room for <see cref="Capacity"/> indices.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct KvmMsrList
{
    internal const int Capacity = 510;

    internal uint NMsrs;
    internal IndexArray Indices;

    [InlineArray(Capacity)]
    internal struct IndexArray
    {
        private uint _first;
    }
}

/// <summary><c>struct kvm_msrs</c> with room for <see cref="Capacity"/> entries.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct KvmAllMsrs
{
    internal const int Capacity = 255;

    internal uint NMsrs;
    internal uint Pad;
    internal EntryArray Entries;

    [InlineArray(Capacity)]
    internal struct EntryArray
    {
        private KvmMsrEntry _first;
    }
}
