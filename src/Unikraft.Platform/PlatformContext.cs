using Microsoft.Extensions.Logging;
using Unikraft.Platform.Diagnostics;
using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Resources;
using Unikraft.Platform.Storage;
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
    /// <summary>Where resources are kept, if they are. Set once, before there are any.</summary>
    public DataDirectory? Data { get; set; }

    /// <summary>The volumes. Set once, before anything else happens: they are a part of the platform that needs the others.</summary>
    public VolumeCatalog Volumes { get; set; } = null!;

    /// <summary>Waits until everything that has changed so far is on the disk, if anything is to be.</summary>
    /// <exception cref="StorageException">It could not be written. It will be with the next change, or in a while.</exception>
    public Task CommitAsync() => Data?.CommitAsync() ?? Task.CompletedTask;

    /// <summary>The same for what has happened, whether it can be written or not: it is tried again.</summary>
    /// <returns>Whether it was written.</returns>
    public async Task<bool> TryCommitAsync()
    {
        try
        {
            await CommitAsync().ConfigureAwait(false);
            return true;
        }
        catch (StorageException)
        {
            // Logged where it is tried again.
            return false;
        }
    }

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
