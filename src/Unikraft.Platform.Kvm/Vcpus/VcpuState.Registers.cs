using System.Buffers.Binary;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Unikraft.Platform.Kvm.Interop;

namespace Unikraft.Platform.Kvm.Vcpus;

internal sealed partial class VcpuState
{
    private const int ModelSpecificSize = 2 * sizeof(ulong);

    /// <summary>The size of <see cref="WriteRegisters"/>.</summary>
    internal static int RegistersSize { get; } =
        Unsafe.SizeOf<KvmRegs>() + Unsafe.SizeOf<KvmSregs>() + Unsafe.SizeOf<KvmXcrs>() + Unsafe.SizeOf<KvmDebugregs>()
        + Unsafe.SizeOf<KvmVcpuEvents>() + Unsafe.SizeOf<KvmXsave>() + ModelSpecificSize;

    /// <summary>Makes a state of what <see cref="WriteRegisters"/> wrote. KVM checks it when it is given to a vCPU.</summary>
    /// <param name="registers">The registers.</param>
    /// <param name="wait">The call that the vCPU sleeps in.</param>
    /// <param name="isWakePending">Whether the wake event was pending.</param>
    /// <param name="kernel">What there is beyond a flat guest.</param>
    internal static VcpuState Load(ReadOnlySpan<byte> registers, VcpuWait? wait, bool isWakePending, KernelRegisters? kernel)
    {
        VcpuState state = new() { Wait = wait, IsWakePending = isWakePending, Kernel = kernel };
        state._regs = Take<KvmRegs>(ref registers);
        state._sregs = Take<KvmSregs>(ref registers);
        state._xcrs = Take<KvmXcrs>(ref registers);
        state._debugregs = Take<KvmDebugregs>(ref registers);
        state._events = Take<KvmVcpuEvents>(ref registers);
        state._xsave = Take<KvmXsave>(ref registers);
        state._msrs.First.Data = BinaryPrimitives.ReadUInt64LittleEndian(registers);
        state._msrs.Second.Data = BinaryPrimitives.ReadUInt64LittleEndian(registers[sizeof(ulong)..]);
        return state;
    }

    /// <summary>Writes the registers as KVM has them, in the order of docs/snapshot-format.md.</summary>
    internal void WriteRegisters(Span<byte> destination)
    {
        Put(ref destination, in _regs);
        Put(ref destination, in _sregs);
        Put(ref destination, in _xcrs);
        Put(ref destination, in _debugregs);
        Put(ref destination, in _events);
        Put(ref destination, in _xsave);
        BinaryPrimitives.WriteUInt64LittleEndian(destination, _msrs.First.Data);
        BinaryPrimitives.WriteUInt64LittleEndian(destination[sizeof(ulong)..], _msrs.Second.Data);
    }

    private static void Put<T>(ref Span<byte> destination, in T value)
        where T : unmanaged
    {
        MemoryMarshal.Write(destination, in value);
        destination = destination[Unsafe.SizeOf<T>()..];
    }

    private static T Take<T>(ref ReadOnlySpan<byte> source)
        where T : unmanaged
    {
        T value = MemoryMarshal.Read<T>(source);
        source = source[Unsafe.SizeOf<T>()..];
        return value;
    }
}
