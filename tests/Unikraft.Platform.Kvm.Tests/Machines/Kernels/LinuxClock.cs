using System.Globalization;

namespace Unikraft.Platform.Kvm.Tests.Machines.Kernels;

/// <summary>The wall clock of a guest.</summary>
internal static class LinuxClock
{
    /// <summary>Prints what <see cref="AssertRightAsync"/> reads.</summary>
    internal const string Command = "echo clock: $(/bin/linux-writer time)";

    internal const string Prefix = "clock: ";

    private static readonly TimeSpan Tolerance = TimeSpan.FromSeconds(1);

    /// <summary>Asks a guest for its time, which is the host's to a second: at some moment between the question and the answer, however long that takes.</summary>
    /// <param name="time">The host's clock.</param>
    /// <param name="ask">Has the guest do <see cref="Command"/>, and gives back the line that begins with <see cref="Prefix"/>.</param>
    internal static async Task AssertRightAsync(TimeProvider time, Func<Task<string>> ask)
    {
        DateTimeOffset before = time.GetUtcNow();
        long guest = long.Parse((await ask())[Prefix.Length..].TrimEnd('\r'), CultureInfo.InvariantCulture);
        Assert.InRange(DateTimeOffset.FromUnixTimeMilliseconds(guest), before - Tolerance, time.GetUtcNow() + Tolerance);
    }
}
