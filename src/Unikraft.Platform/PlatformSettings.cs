namespace Unikraft.Platform;

/// <summary>The options as they were when the platform was built.</summary>
internal sealed record PlatformSettings(
    TimeSpan StopGracePeriod,
    int LogCapacityBytes,
    int DefaultMemoryMb,
    int DefaultVcpus,
    TimeSpan SnapshotPauseBudget,
    int MaxInstancesForForks,
    TimeSpan MaxDrainTimeout,
    PlatformLicense? License,
    string? VolumeDirectory,
    string? MkfsExt4Path,
    string? DataDirectory,
    Durability Durability,
    long MinFreeDiskBytes)
{
    public static PlatformSettings From(PlatformOptions options) =>
        new(
            options.StopGracePeriod,
            options.LogCapacityBytes,
            options.DefaultMemoryMb,
            options.DefaultVcpus,
            options.SnapshotPauseBudget,
            options.MaxInstancesForForks,
            options.MaxDrainTimeout,
            options.License,
            options.VolumeDirectory,
            options.MkfsExt4Path,
            options.DataDirectory,
            options.Durability,
            options.MinFreeDiskBytes);
}
