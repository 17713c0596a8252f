using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace Unikraft.Platform.Kvm.Interop;

/// <summary>
/// <c>struct kvm_run</c>: the page that a vCPU shares with the kernel. Accessed field by field, never copied, because the kernel writes to it.
/// </summary>
internal sealed unsafe class KvmRunPage : SafeHandle
{
    internal const int ImmediateExitOffset = 1;
    internal const int ExitReasonOffset = 8;
    internal const int MmioAddressOffset = 32;
    internal const int MmioDataOffset = 40;
    internal const int MmioLengthOffset = 48;
    internal const int MmioIsWriteOffset = 52;
    internal const int IoDirectionOffset = 32;
    internal const int IoSizeOffset = 33;
    internal const int IoPortOffset = 34;
    internal const int IoCountOffset = 36;
    internal const int IoDataOffsetOffset = 40;
    internal const int InternalSuberrorOffset = 32;
    internal const int FailEntryReasonOffset = 32;

    internal const int ValidRegistersOffset = 288;
    internal const int DirtyRegistersOffset = 296;
    internal const int RegistersOffset = 304;

    private const int MmioDataCapacity = 8;
    private const ulong AllRegisters = KvmConstants.SyncRegs | KvmConstants.SyncSregs | KvmConstants.SyncEvents;

    private readonly nuint _size;
    private readonly byte* _page;

    internal KvmRunPage(DescriptorHandle vcpu, int size)
        : base(invalidHandleValue: -1, ownsHandle: true)
    {
        _size = (nuint)size;
        bool added = false;
        try
        {
            vcpu.DangerousAddRef(ref added);
            SetHandle(Libc.MemoryMap(
                address: 0,
                _size,
                Libc.ProtectionRead | Libc.ProtectionWrite,
                Libc.MapShared,
                (int)vcpu.DangerousGetHandle(),
                offset: 0));
        }
        finally
        {
            if (added)
            {
                vcpu.DangerousRelease();
            }
        }

        if (IsInvalid)
        {
            throw HostError.Last("Mapping struct kvm_run");
        }

        _page = (byte*)handle;
    }

    public override bool IsInvalid => handle == -1;

    /// <summary>When set, KVM_RUN completes what is pending and returns without entering the guest.</summary>
    internal bool ImmediateExit
    {
        set => Volatile.Write(ref _page[ImmediateExitOffset], value ? (byte)1 : (byte)0);
    }

    internal uint ExitReason => Read<uint>(ExitReasonOffset);

    internal ulong MmioAddress => Read<ulong>(MmioAddressOffset);

    internal bool MmioIsWrite => Read<byte>(MmioIsWriteOffset) != 0;

    /// <summary>The bytes that the guest wrote, or the place for those it reads. Never longer than the field, whatever the length says.</summary>
    internal Span<byte> MmioData => new(_page + MmioDataOffset, (int)Math.Min(Read<uint>(MmioLengthOffset), MmioDataCapacity));

    internal bool IoIsWrite => Read<byte>(IoDirectionOffset) == KvmConstants.ExitIoOut;

    internal ushort IoPort => Read<ushort>(IoPortOffset);

    /// <summary>The bytes of one access to a port; of a string instruction there are several in <see cref="IoData"/>.</summary>
    internal int IoSize => Read<byte>(IoSizeOffset);

    /// <summary>The bytes that the guest wrote to a port, or the place for those it reads. Never beyond the page, whatever the fields say.</summary>
    internal Span<byte> IoData
    {
        get
        {
            ulong offset = Math.Min(Read<ulong>(IoDataOffsetOffset), _size);
            return new Span<byte>(_page + offset, (int)Math.Min((ulong)IoSize * Read<uint>(IoCountOffset), _size - offset));
        }
    }

    internal uint InternalSuberror => Read<uint>(InternalSuberrorOffset);

    internal ulong FailEntryReason => Read<ulong>(FailEntryReasonOffset);

    /// <summary>Makes KVM_RUN leave the registers here whenever it returns, until they are forgotten. Safe to call from any thread.</summary>
    internal void RequestRegisters() => Volatile.Write(ref Unsafe.As<byte, ulong>(ref _page[ValidRegistersOffset]), AllRegisters);

    /// <summary>Takes the registers that the last KVM_RUN left, if it did.</summary>
    internal bool TryTakeRegisters(out KvmSyncRegs registers)
    {
        registers = Read<KvmSyncRegs>(RegistersOffset);
        ForgetRegisters();
        return registers.Regs.Rflags != 0;
    }

    /// <summary>Ends <see cref="RequestRegisters"/>. The flags, which are never 0 in a CPU, tell that nothing is here.</summary>
    internal void ForgetRegisters()
    {
        Volatile.Write(ref Unsafe.As<byte, ulong>(ref _page[ValidRegistersOffset]), 0);
        Unsafe.WriteUnaligned(_page + RegistersOffset + Unsafe.SizeOf<KvmRegs>() - sizeof(ulong), 0UL);
    }

    /// <summary>Makes the next KVM_RUN begin with these registers.</summary>
    internal void PutRegisters(in KvmSyncRegs registers)
    {
        Unsafe.WriteUnaligned(_page + RegistersOffset, registers);
        Unsafe.WriteUnaligned(_page + DirtyRegistersOffset, AllRegisters);
    }

    protected override bool ReleaseHandle() => Libc.MemoryUnmap(handle, _size) == 0;

    private T Read<T>(int offset)
        where T : unmanaged => Unsafe.ReadUnaligned<T>(_page + offset);
}
