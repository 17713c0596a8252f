using System.Globalization;
using Unikraft.Platform.Kvm.Interop;

namespace Unikraft.Platform.Kvm.Machines;

/// <summary>The time stamp counter of the host's processors, as guests meet it.</summary>
/// <param name="Khz">Its frequency; 0 when KVM does not tell.</param>
/// <param name="CanScale">Whether that of a vCPU can run at another one.</param>
internal sealed record HostTsc(int Khz, bool CanScale)
{
    /// <summary>What KVM takes for the same frequency: each start of a host measures its own a little differently.</summary>
    private const int TolerancePerMillion = 250;

    internal static HostTsc Of(KvmDevice device) => new(device.TscKhz, device.Has(KvmConstants.CapTscControl));

    /// <summary>Finds the frequency that the vCPUs of a guest have to be set to, which was told another one elsewhere.</summary>
    /// <param name="guestKhz">The frequency that the guest knows; 0 when KVM did not tell.</param>
    /// <param name="path">The snapshot that it comes from; <see langword="null"/> when that has no file.</param>
    /// <returns><see langword="null"/> when they run at it by themselves, or nobody knows.</returns>
    /// <exception cref="IncompatibleMachineException">They cannot be, and the snapshot has a file.</exception>
    /// <exception cref="HypervisorException">They cannot be.</exception>
    internal int? ScaleFor(int guestKhz, string? path)
    {
        if (guestKhz == 0 || Khz == 0 || Math.Abs((long)guestKhz - Khz) * 1_000_000 <= (long)Khz * TolerancePerMillion)
        {
            return null;
        }

        if (CanScale)
        {
            return guestKhz;
        }

        string reason = string.Create(
            CultureInfo.InvariantCulture,
            $"the time stamp counter of its guest runs at {guestKhz} kHz, that of this host at {Khz} kHz, and KVM cannot scale it on this CPU");
        throw path is null
            ? new HypervisorException($"The snapshot cannot be restored on this host: {reason}.")
            : new IncompatibleMachineException(
                path,
                $"The snapshot '{path}' cannot be restored on this host: {reason}. Move the data directory back to a host like the one that it was taken on, or start anew from an image.");
    }
}
