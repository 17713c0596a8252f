using Microsoft.Extensions.Logging;
using Unikraft.Platform.Diagnostics;
using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Resources;
using Unikraft.Platform.Volumes;

namespace Unikraft.Platform;

/// <summary>What all parts of a platform share.</summary>
internal sealed record PlatformContext(
    IHypervisor Hypervisor,
    PlatformSettings Settings,
    TimeProvider TimeProvider,
    ILogger Logger,
    Telemetry Telemetry,
    Rundown Rundown,
    QuotaUse Quotas)
{
    /// <summary>The volumes. Set once, before anything else happens: they are a part of the platform that needs the others.</summary>
    public VolumeCatalog Volumes { get; set; } = null!;

    /// <summary>Runs an operation that the disposal of the platform cancels as well as the caller.</summary>
    /// <exception cref="ObjectDisposedException">The platform was disposed of meanwhile.</exception>
    public async Task<T> CancelOnCloseAsync<T>(Func<CancellationToken, Task<T>> operation, CancellationToken cancellationToken)
    {
        using var either = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken, Rundown.Closing);
        try
        {
            return await operation(either.Token).ConfigureAwait(false);
        }
        catch (OperationCanceledException) when (!cancellationToken.IsCancellationRequested)
        {
            Rundown.ThrowIfClosed();
            throw;
        }
    }
}
