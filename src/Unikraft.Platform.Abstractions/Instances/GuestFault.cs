using System.Globalization;

namespace Unikraft.Platform;

/// <summary>The CPU exception that ended a guest, as the CPU reported it.</summary>
/// <param name="Vcpu">The vCPU that took the exception.</param>
/// <param name="Vector">The x86 exception vector, for example 14 for a page fault.</param>
/// <param name="ErrorCode">The error code of the exception; 0 for exceptions without one.</param>
/// <param name="InstructionPointer">The guest virtual address of the instruction.</param>
/// <param name="StackPointer">The guest virtual address of the top of the stack.</param>
/// <param name="Address">For a page fault, the guest virtual address that was accessed.</param>
public sealed record GuestFault(
    int Vcpu,
    int Vector,
    ulong ErrorCode,
    ulong InstructionPointer,
    ulong StackPointer,
    ulong? Address)
{
    /// <summary>The fault on one line, for example <c>#PF at 0x100234 accessing 0xdead000 (error 0x6) on vCPU 0</c>.</summary>
    public override string ToString()
    {
        string name = Vector switch
        {
            0 => "#DE",
            1 => "#DB",
            2 => "NMI",
            3 => "#BP",
            4 => "#OF",
            5 => "#BR",
            6 => "#UD",
            7 => "#NM",
            8 => "#DF",
            10 => "#TS",
            11 => "#NP",
            12 => "#SS",
            13 => "#GP",
            14 => "#PF",
            16 => "#MF",
            17 => "#AC",
            18 => "#MC",
            19 => "#XM",
            21 => "#CP",
            _ => string.Create(CultureInfo.InvariantCulture, $"exception {Vector}"),
        };
        string access = Address is { } address ? $" accessing 0x{address:x}" : "";
        return string.Create(
            CultureInfo.InvariantCulture,
            $"{name} at 0x{InstructionPointer:x}{access} (error 0x{ErrorCode:x}) on vCPU {Vcpu}");
    }
}
