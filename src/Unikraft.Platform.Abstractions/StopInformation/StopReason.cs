using System.Diagnostics.CodeAnalysis;

namespace Unikraft.Platform;

/// <summary>
/// Where the shutdown of an instance came from, as a bit mask: the <c>stop_reason</c> of the Unikraft Cloud instances API.
/// </summary>
/// <remarks>Use <see cref="StopReasons.ToMask(StopReason)"/> for the documented text form, for example <c>FUP--</c>.</remarks>
[Flags]
[SuppressMessage("Naming", "CA1711:Identifiers should not have incorrect suffix", Justification = "The API's own name.")]
public enum StopReason
{
    /// <summary>The stop reason is unknown.</summary>
    None = 0,

    /// <summary>Bit 0 [K]: the kernel exited and a <see cref="StopCode"/> is available.</summary>
    Kernel = 1 << 0,

    /// <summary>Bit 1 [A]: the app exited and an exit code is available.</summary>
    App = 1 << 1,

    /// <summary>Bit 2 [P]: the stop was initiated by the platform. Always set when <see cref="User"/> is.</summary>
    Platform = 1 << 2,

    /// <summary>Bit 3 [U]: the stop was initiated by the user.</summary>
    User = 1 << 3,

    /// <summary>Bit 4 [F]: a force stop, which gives the instance no chance to shut down.</summary>
    Force = 1 << 4,

    /// <summary>Bit 5 [Z]: the stop was a scale to zero.</summary>
    ScaleToZero = 1 << 5,
}
