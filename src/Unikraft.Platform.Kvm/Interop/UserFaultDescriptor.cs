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

    /// <summary>Puts a copy of some pages where there are none yet, up to the first one that is there already.</summary>
    /// <param name="destination">Where to.</param>
    /// <param name="source">Where from.</param>
    /// <param name="length">The number of bytes, in whole pages.</param>
    /// <param name="done">The number of bytes that were put there; less than <paramref name="length"/> when the next page is there already.</param>
    /// <returns>False when the rest could not be put there for any other reason.</returns>
    internal bool TryCopy(nint destination, nint source, int length, out int done)
    {
        UserFaultCopy copy = new()
        {
            Destination = (ulong)destination,
            Source = (ulong)source,
            Length = (ulong)length,
            Mode = UserFaultConstants.CopyModeDontWake,
        };
        done = 0;
        while (KvmIoctl.Call(_descriptor, UserFaultConstants.Copy, ref copy) < 0)
        {
            int error = Marshal.GetLastPInvokeError();
            if (error != Libc.ErrnoAgain)
            {
                return error == Libc.ErrnoExists;
            }

            // There is a page behind those that were put, or the mappings of the process were being changed.
            ulong put = (ulong)Math.Max(0, copy.Copied);
            copy.Destination += put;
            copy.Source += put;
            copy.Length -= put;
            copy.Copied = 0;
            done += (int)put;
        }

        done = length;
        return true;
    }

    public void Dispose() => _descriptor.Dispose();
}
