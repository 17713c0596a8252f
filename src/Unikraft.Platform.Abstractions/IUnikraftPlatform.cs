namespace Unikraft.Platform;

/// <summary>A microVM platform in this process.</summary>
/// <remarks>
/// Made by <c>services.AddUnikraftPlatform()</c> or by <c>new UnikraftPlatformBuilder()</c>. Disposing of it force-stops what still runs and frees
/// everything; a host that wants its guests to shut down cleanly calls <see cref="StopAllAsync"/> first.
/// </remarks>
public interface IUnikraftPlatform : IAsyncDisposable
{
    /// <summary>The instances.</summary>
    IInstanceManager Instances { get; }

    /// <summary>The checkpoints.</summary>
    ICheckpointStore Checkpoints { get; }

    /// <summary>The templates.</summary>
    ITemplateStore Templates { get; }

    /// <summary>The volumes.</summary>
    IVolumeStore Volumes { get; }

    /// <summary>The directory in which the resources are kept; <see langword="null"/> when nothing outlives the platform.</summary>
    IDataDirectory? Data { get; }

    /// <summary>The backend in use.</summary>
    HypervisorInfo Hypervisor { get; }

    /// <summary>
    /// Stops all instances on behalf of the platform: their stop reason has the bit <see cref="StopReason.Platform"/> but not
    /// <see cref="StopReason.User"/>, and they are not restarted.
    /// </summary>
    /// <param name="cancellationToken">When cancelled, what still runs is force-stopped at once.</param>
    Task StopAllAsync(CancellationToken cancellationToken = default);
}
