namespace Unikraft.Platform.Resources;

/// <summary>What the licence of the platform, if it has one, does not allow.</summary>
internal static class LicenseCheck
{
    public static void RequireBranching(PlatformContext platform) => Require(platform, static license => license.Branching, "branching");

    public static void RequireCheckpointing(PlatformContext platform) =>
        Require(platform, static license => license.Checkpointing, "checkpointing");

    private static void Require(PlatformContext platform, Func<PlatformLicense, bool> includes, string feature)
    {
        if (platform.Settings.License is { } license && (!includes(license) || platform.TimeProvider.GetUtcNow() >= license.ValidUntil))
        {
            throw new PlatformException(
                PlatformErrorCode.InsufficientLicense,
                $"Insufficient license. Please make sure your license is valid and includes {feature}");
        }
    }
}
