using Microsoft.Extensions.Options;

namespace Unikraft.Platform;

internal sealed class PlatformOptionsValidator : IValidateOptions<PlatformOptions>
{
    private const int MinLogCapacity = 4 << 10;
    private const int MaxLogCapacity = 1 << 30;
    private const int MaxVcpus = 256;

    public ValidateOptionsResult Validate(string? name, PlatformOptions options)
    {
        List<string> failures = [];
        if (!Durations.IsGracePeriod(options.StopGracePeriod))
        {
            failures.Add(Message(nameof(options.StopGracePeriod), options.StopGracePeriod, "0 to 24 hours, or Timeout.InfiniteTimeSpan"));
        }

        if (options.LogCapacityBytes is < MinLogCapacity or > MaxLogCapacity)
        {
            failures.Add(Message(nameof(options.LogCapacityBytes), options.LogCapacityBytes, $"{MinLogCapacity} to {MaxLogCapacity}"));
        }

        if (options.DefaultMemoryMb < 1)
        {
            failures.Add(Message(nameof(options.DefaultMemoryMb), options.DefaultMemoryMb, "1 or more"));
        }

        if (options.DefaultVcpus is < 1 or > MaxVcpus)
        {
            failures.Add(Message(nameof(options.DefaultVcpus), options.DefaultVcpus, $"1 to {MaxVcpus}"));
        }

        if (!Durations.IsPauseBudget(options.SnapshotPauseBudget))
        {
            failures.Add(Message(nameof(options.SnapshotPauseBudget), options.SnapshotPauseBudget, "1 ms or more, or Timeout.InfiniteTimeSpan"));
        }

        if (options.MaxInstancesForForks < 0)
        {
            failures.Add(Message(nameof(options.MaxInstancesForForks), options.MaxInstancesForForks, "0 or more"));
        }

        if (options.DataDirectory is { } directory && string.IsNullOrWhiteSpace(directory))
        {
            failures.Add(Message(nameof(options.DataDirectory), "empty", "a path, or null"));
        }

        if (!Enum.IsDefined(options.Durability))
        {
            failures.Add(Message(nameof(options.Durability), options.Durability, "Synced and HostManaged"));
        }

        if (options.MinFreeDiskBytes < 0)
        {
            failures.Add(Message(nameof(options.MinFreeDiskBytes), options.MinFreeDiskBytes, "0 or more"));
        }

        if (options.MaxDrainTimeout <= TimeSpan.Zero || options.MaxDrainTimeout > Durations.MaxDrainTimeout)
        {
            failures.Add(Message(nameof(options.MaxDrainTimeout), options.MaxDrainTimeout, "more than 0, up to 24 hours"));
        }

        if (options.Quotas is not { Instances: null or >= 0, LiveInstances: null or >= 0, LiveVcpus: null or >= 0, LiveMemoryMb: null or >= 0 })
        {
            failures.Add($"{nameof(PlatformOptions)}.{nameof(options.Quotas)} is null or has a negative limit; a limit is 0 or more, or null for none.");
        }

        return failures.Count == 0 ? ValidateOptionsResult.Success : ValidateOptionsResult.Fail(failures);
    }

    private static string Message(string option, object value, string allowed) =>
        FormattableString.Invariant($"{nameof(PlatformOptions)}.{option} is {value}; allowed is {allowed}.");
}
