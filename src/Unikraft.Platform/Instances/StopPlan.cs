using System.Runtime.InteropServices;

namespace Unikraft.Platform.Instances;

/// <summary>How to stop an instance.</summary>
/// <param name="Force">Whether the guest gets no chance to shut down.</param>
/// <param name="GracePeriod">How long the guest has when it is asked to.</param>
/// <param name="DrainTimeout">How long connections may go on before; 0 to stop at once.</param>
[StructLayout(LayoutKind.Auto)]
internal readonly record struct StopPlan(bool Force, TimeSpan GracePeriod, TimeSpan DrainTimeout = default)
{
    public static StopPlan Forced { get; } = new(Force: true, GracePeriod: TimeSpan.Zero);
}
