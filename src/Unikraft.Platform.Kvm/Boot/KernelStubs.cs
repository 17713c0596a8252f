using System.Buffers.Binary;
using Unikraft.Platform.Kvm.Memory;

namespace Unikraft.Platform.Kvm.Boot;

/// <summary>
/// The platform's share of ring 0: descriptor tables and one stub for each exception, which reports the vector through the fault page.
/// </summary>
/// <remarks>
/// A stub changes no register, so that the VMM finds everything as the CPU left it; where ring 0 is emulated instruction by instruction, its
/// brevity also counts. Formats: Intel SDM volume 3, chapters 3 (segments), 6 (gates) and 8 (64-bit TSS).
/// </remarks>
internal static class KernelStubs
{
    internal const int ExceptionVectors = 32;
    internal const ushort KernelCodeSelector = 0x10;
    internal const ushort KernelDataSelector = 0x18;
    internal const ushort UserDataSelector = 0x28 | 3;
    internal const ushort UserCodeSelector = 0x30 | 3;
    internal const ushort TaskSelector = 0x40;
    internal const int TaskSegmentSize = 104;
    internal const int GdtSize = 0x50;
    internal const int GateSize = 16;

    private const int TaskSegmentStride = 128;
    private const int StubSize = 16;
    private const int StackSize = 512;
    private const int DoubleFault = 8;
    private const int NonMaskableInterrupt = 2;
    private const int Breakpoint = 3;
    private const int Overflow = 4;

    private const ulong KernelCode = 0x00AF_9B00_0000_FFFF;
    private const ulong KernelData = 0x00CF_9300_0000_FFFF;
    private const ulong UserData = 0x00CF_F300_0000_FFFF;
    private const ulong UserCode = 0x00AF_FB00_0000_FFFF;

    internal static ulong TaskSegment(int vcpu) => (ulong)(FlatGuestLayout.TssAddress + vcpu * TaskSegmentStride);

    internal static void Install(GuestMemory memory, int vcpus)
    {
        memory.Write(FlatGuestLayout.GdtAddress + KernelCodeSelector, KernelCode);
        memory.Write(FlatGuestLayout.GdtAddress + KernelDataSelector, KernelData);
        memory.Write(FlatGuestLayout.GdtAddress + (UserDataSelector & ~3), UserData);
        memory.Write(FlatGuestLayout.GdtAddress + (UserCodeSelector & ~3), UserCode);

        Span<byte> stubs = stackalloc byte[ExceptionVectors * StubSize];
        Span<byte> gates = stackalloc byte[ExceptionVectors * GateSize];
        stubs.Clear();
        gates.Clear();
        for (int vector = 0; vector < ExceptionVectors; vector++)
        {
            WriteStub(stubs.Slice(vector * StubSize, StubSize), vector);
            WriteGate(gates.Slice(vector * GateSize, GateSize), vector);
        }

        memory.Write(FlatGuestLayout.StubsAddress, stubs);
        memory.Write(FlatGuestLayout.IdtAddress, gates);
        for (int vcpu = 0; vcpu < vcpus; vcpu++)
        {
            long task = (long)TaskSegment(vcpu);
            memory.Write(task + 4, FlatGuestLayout.KernelStacksAddress + (vcpu + 1) * (long)StackSize);
            memory.Write(task + 36, FlatGuestLayout.InterruptStacksAddress + (vcpu + 1) * (long)StackSize);
            memory.Write(task + 102, (ushort)TaskSegmentSize);
        }

        // There are no system calls. Where SYSCALL goes to LSTAR all the same, it stays in ring 3: hence a page the guest can execute.
        memory.Write<ushort>(FlatGuestLayout.SyscallLandingAddress, 0x0B0F);
    }

    private static void WriteStub(Span<byte> stub, int vector)
    {
        ReadOnlySpan<byte> storeImmediate = [0xC7, 0x04, 0x25];
        ReadOnlySpan<byte> haltForever = [0xF4, 0xEB, 0xFD];
        storeImmediate.CopyTo(stub);
        BinaryPrimitives.WriteInt32LittleEndian(stub[3..], (int)FlatGuestLayout.FaultVirtualAddress);
        BinaryPrimitives.WriteInt32LittleEndian(stub[7..], vector);
        haltForever.CopyTo(stub[11..]);
    }

    private static void WriteGate(Span<byte> gate, int vector)
    {
        const byte InterruptGate = 0x8E;
        const byte UserCallable = 0x60;
        long stub = FlatGuestLayout.StubsAddress + vector * StubSize;
        BinaryPrimitives.WriteUInt16LittleEndian(gate, (ushort)stub);
        BinaryPrimitives.WriteUInt16LittleEndian(gate[2..], KernelCodeSelector);

        // A double fault or an NMI may find the ring-0 stack unusable: these two get their own.
        gate[4] = vector is DoubleFault or NonMaskableInterrupt ? (byte)1 : (byte)0;
        gate[5] = vector is Breakpoint or Overflow ? (byte)(InterruptGate | UserCallable) : InterruptGate;
        BinaryPrimitives.WriteUInt16LittleEndian(gate[6..], (ushort)(stub >> 16));
    }
}
