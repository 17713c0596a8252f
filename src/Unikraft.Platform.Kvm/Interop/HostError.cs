using System.Runtime.InteropServices;

namespace Unikraft.Platform.Kvm.Interop;

/// <summary>Turns the error of a system call into a typed exception. Nothing above this folder sees an errno.</summary>
internal static class HostError
{
    /// <summary>The exception for the last failed call of this thread.</summary>
    /// <param name="operation">What was being done, for example <c>KVM_CREATE_VCPU</c>.</param>
    internal static HypervisorException Last(string operation)
    {
        int errno = Marshal.GetLastPInvokeError();
        string advice = errno == Libc.ErrnoNoMemory
            ? " The host has no memory left, or vm.max_map_count is reached."
            : "";
        return new HypervisorException($"{operation} failed: {Marshal.GetPInvokeErrorMessage(errno)} (errno {errno}).{advice}");
    }

    internal static int Check(int result, string operation) => result >= 0 ? result : throw Last(operation);
}
