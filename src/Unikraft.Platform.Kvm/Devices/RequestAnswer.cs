using System.Runtime.InteropServices;

namespace Unikraft.Platform.Kvm.Devices;

/// <summary>How a request of a guest to the platform ends.</summary>
/// <param name="Errno">0, or a Linux error number.</param>
/// <param name="IsClone">Whether it ends in a clone.</param>
/// <param name="Child">The UUID of the clone, when there is one.</param>
[StructLayout(LayoutKind.Auto)]
internal readonly record struct RequestAnswer(int Errno, bool IsClone, Guid Child)
{
    internal static RequestAnswer Refused(int errno) => new(errno, IsClone: false, Guid.Empty);

    internal static RequestAnswer InParent(Guid child) => new(Errno: 0, IsClone: false, child);

    internal static RequestAnswer InClone(Guid own) => new(Errno: 0, IsClone: true, own);
}
