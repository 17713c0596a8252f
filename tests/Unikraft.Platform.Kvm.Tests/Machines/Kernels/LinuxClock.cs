using System.Globalization;
using System.Runtime.InteropServices;

namespace Unikraft.Platform.Kvm.Tests.Machines.Kernels;

/// <summary>By how many seconds the clock of a guest is behind the host's: somewhere between the two, for a guest takes its time to answer.</summary>
/// <remarks>
/// Clocks are compared with that of the original. Until it has found its clock, Linux counts ticks while it boots, of which it loses some when everything is as slow as in
/// the lab, and stays behind by these.
/// </remarks>
[StructLayout(LayoutKind.Auto)]
internal readonly record struct LinuxClock(double Least, double Most)
{
    /// <summary>Prints what <see cref="MeasureAsync"/> reads.</summary>
    internal const string Command = "echo clock: $(busybox date +%s)";

    internal const string Prefix = "clock: ";

    /// <summary>Asks a guest for its time.</summary>
    /// <param name="time">The host's clock.</param>
    /// <param name="ask">Has the guest do <see cref="Command"/>, and gives back the line that begins with <see cref="Prefix"/>.</param>
    internal static async Task<LinuxClock> MeasureAsync(TimeProvider time, Func<Task<string>> ask)
    {
        double before = Now();
        long guest = long.Parse((await ask())[Prefix.Length..].TrimEnd('\r'), CultureInfo.InvariantCulture);

        // The guest's seconds are cut off.
        return new LinuxClock(before - guest - 1, Now() - guest);

        double Now() => time.GetUtcNow().ToUnixTimeMilliseconds() / 1000.0;
    }

    /// <summary>The clock of a clone is that of its original, to a second.</summary>
    internal static void AssertSame(LinuxClock original, LinuxClock clone)
    {
        Assert.InRange(clone.Least, double.MinValue, original.Most + 1);
        Assert.InRange(clone.Most, original.Least - 1, double.MaxValue);
    }
}
