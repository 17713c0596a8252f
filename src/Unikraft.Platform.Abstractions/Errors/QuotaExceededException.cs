namespace Unikraft.Platform;

/// <summary>A quota of the platform is used up. Nothing was done; delete or stop something, or raise the quota.</summary>
/// <param name="what">What could not be done.</param>
/// <param name="quota">The quota.</param>
/// <param name="limit">Its limit.</param>
public sealed class QuotaExceededException(string what, string quota, long limit)
    : PlatformException(
        PlatformErrorCode.QuotaExceeded,
        FormattableString.Invariant($"{what}: quota exceeded, '{quota}' has a current limit of {limit}"))
{
    /// <summary>The quota, by its public name: <c>instances</c>, <c>live_instances</c>, <c>live_vcpus</c> or <c>live_memory_mb</c>.</summary>
    public string Quota { get; } = quota;

    /// <summary>Its limit.</summary>
    public long Limit { get; } = limit;
}
