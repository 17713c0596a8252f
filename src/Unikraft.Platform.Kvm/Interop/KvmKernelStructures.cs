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
