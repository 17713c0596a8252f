using System.Runtime.InteropServices;

namespace Unikraft.Platform.Kvm.Interop;

/// <summary>
/// <c>userfaultfd</c>, for one of the things it can do: put a page into memory by a call, which costs half of what the fault of a first write does.
/// </summary>
internal sealed class UserFaultDescriptor : IDisposable
{
    private readonly DescriptorHandle _descriptor;

    private UserFaultDescriptor(DescriptorHandle descriptor) => _descriptor = descriptor;

    /// <summary>Opens one for this process.</summary>
    /// <returns><see langword="null"/> where the kernel has none, or does not let this process have one.</returns>
    internal static UserFaultDescriptor? TryOpen()
    {
        // Without the privilege, faults of the kernel on behalf of this process fail instead of waiting until the memory is unregistered.
        int descriptor = Open(0);
        descriptor = descriptor < 0 ? Open(UserFaultConstants.UserModeOnly) : descriptor;
        if (descriptor < 0)
        {
            return null;
        }

        DescriptorHandle handle = new(descriptor);
        UserFaultApi api = new() { Api = UserFaultConstants.ApiVersion };
        if (KvmIoctl.Call(handle, UserFaultConstants.Api, ref api) < 0)
        {
            handle.Dispose();
            return null;
        }

        return new UserFaultDescriptor(handle);

        static int Open(int flags) => (int)Libc.SystemCall(UserFaultConstants.SystemCall, flags | Libc.OpenCloseOnExec);
    }

    /// <summary>Lets pages be put into a range. Whoever touches one that is not there waits until the range is unregistered.</summary>
    /// <returns>False when the range is backed by files of a kind that does not allow it.</returns>
    internal bool TryRegister(nint address, long length)
    {
        UserFaultRegister register = new() { Start = (ulong)address, Length = (ulong)length, Mode = UserFaultConstants.RegisterModeMissing };
        return KvmIoctl.Call(_descriptor, UserFaultConstants.Register, ref register) >= 0;
    }

    /// <summary>Makes a range what it was before, pages aside.</summary>
    internal void Unregister(nint address, long length)
    {
        UserFaultRange range = new() { Start = (ulong)address, Length = (ulong)length };
        HostError.Check(KvmIoctl.Call(_descriptor, UserFaultConstants.Unregister, ref range), "UFFDIO_UNREGISTER");
    }

    /// <summary>Puts a copy of some pages where there are none yet.</summary>
    /// <returns>False when not all of them could be put there, for example because there is one already.</returns>
    internal bool TryCopy(nint destination, nint source, int length)
    {
        UserFaultCopy copy = new()
        {
            Destination = (ulong)destination,
            Source = (ulong)source,
            Length = (ulong)length,
            Mode = UserFaultConstants.CopyModeDontWake,
        };
        while (KvmIoctl.Call(_descriptor, UserFaultConstants.Copy, ref copy) < 0)
        {
            if (Marshal.GetLastPInvokeError() != Libc.ErrnoAgain)
            {
                return false;
            }

            // The mappings of the process were being changed, after some of the pages.
            ulong done = (ulong)Math.Max(0, copy.Copied);
            copy.Destination += done;
            copy.Source += done;
            copy.Length -= done;
            copy.Copied = 0;
        }

        return true;
    }

    public void Dispose() => _descriptor.Dispose();
}
