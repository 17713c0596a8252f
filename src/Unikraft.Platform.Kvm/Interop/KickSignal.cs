using System.Runtime.InteropServices;

namespace Unikraft.Platform.Kvm.Interop;

/// <summary>
/// The signal that makes a vCPU thread leave KVM_RUN. Its handler does nothing, and must not be managed code: what counts is that
/// the system call is interrupted.
/// </summary>
internal sealed class KickSignal
{
    private static readonly Lock InstallLock = new();
    private static readonly int ProcessId = Libc.GetProcessId();
    private static KickSignal? _installed;

    private readonly int _number;

    private KickSignal(int number) => _number = number;

    /// <summary>Installs the handler for SIGRTMIN plus an offset, once for the process.</summary>
    /// <exception cref="HypervisorException">The signal cannot be used, or another one was installed before.</exception>
    internal static KickSignal Install(int offset)
    {
        lock (InstallLock)
        {
            int number = Libc.CurrentRealTimeSignalMinimum() + offset;
            if (_installed is { } installed)
            {
                return installed._number == number
                    ? installed
                    : throw new HypervisorException(
                        "Another hypervisor of this process uses a different kick signal. Give both the same KickSignalOffset.");
            }

            if (number > Libc.CurrentRealTimeSignalMaximum())
            {
                throw new HypervisorException($"There is no real-time signal SIGRTMIN+{offset}. Choose a smaller KickSignalOffset.");
            }

            // Any async-signal-safe function without effect serves as a handler, and saves a native shim.
            nint handler = NativeLibrary.GetExport(NativeLibrary.GetMainProgramHandle(), "getppid");
            SignalActionArgument action = new() { Handler = handler };
            HostError.Check(Libc.SignalAction(number, action, previous: 0), $"sigaction for signal {number}");
            return _installed = new KickSignal(number);
        }
    }

    /// <summary>Sends the signal to a thread of this process that is known to be alive.</summary>
    internal void Send(int thread) => HostError.Check(Libc.ThreadKill(ProcessId, thread, _number), "tgkill");
}
