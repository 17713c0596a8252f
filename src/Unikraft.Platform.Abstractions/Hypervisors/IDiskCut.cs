namespace Unikraft.Platform.Hypervisors;

/// <summary>Cuts the disks of a machine at the moment at which a snapshot of it is taken.</summary>
/// <remarks>The calls come in this order: <see cref="HoldAsync"/>, then <see cref="Cut"/> unless the snapshot fails before, then <see cref="Release"/>.</remarks>
public interface IDiskCut
{
    /// <summary>
    /// The machine holds back what its guest asks of its disks, and has nothing under way. The vCPUs still run, so this must not take long.
    /// </summary>
    /// <param name="cancellationToken">Cancels the snapshot. When this throws, <see cref="Release"/> is not called.</param>
    ValueTask HoldAsync(CancellationToken cancellationToken);

    /// <summary>All vCPUs stand still. Called on the thread of a vCPU: must neither block nor allocate.</summary>
    void Cut();

    /// <summary>The machine goes on to use its disks once this returns. Must not throw.</summary>
    void Release();
}
