using Unikraft.Platform.InMemory;
using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Contracts.Modeling;

/// <summary>A platform to run a script on.</summary>
/// <param name="Platform">The platform, with the quota <see cref="Quota"/>.</param>
/// <param name="Image">Its images.</param>
/// <param name="Time">Its clock, when that is a virtual one. Without it no time passes in scripts.</param>
/// <param name="Backend">Its backend, when that can be delayed and made to fail. Without it cancellations are a race of which both outcomes are right.</param>
public sealed record ModelHost(
    IUnikraftPlatform Platform,
    Func<string, GuestImage> Image,
    ManualTimeProvider? Time = null,
    InMemoryHypervisorOptions? Backend = null)
{
    /// <summary>How many instances, checkpoints and templates there may be.</summary>
    public const int Quota = 14;

    /// <summary>The longest that an instance drains, under virtual time.</summary>
    public static readonly TimeSpan MaxDrainTimeout = TimeSpan.FromSeconds(30);

    /// <summary>The licence of the platform, if it has one.</summary>
    public PlatformLicense? License { get; init; }

    /// <summary>Ends the platform, or kills it when the argument says so, and begins another one on what it has kept; if anything is kept.</summary>
    public Func<bool, Task<ModelHost>>? Restart { get; init; }
}
