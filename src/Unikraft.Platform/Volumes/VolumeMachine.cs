using Unikraft.Platform.Hypervisors;

namespace Unikraft.Platform.Volumes;

/// <summary>A machine with volumes: cuts them with each snapshot, and gives them back in the end.</summary>
internal sealed class VolumeMachine(IVirtualMachine inner, VolumeCatalog catalog, OpenVolumes open) : IVirtualMachine
{
    private Task? _disposal;

    public Task<MachineExit> Exited => inner.Exited;

    public bool HasReachedMain => inner.HasReachedMain;

    public ValueTask StartAsync(CancellationToken cancellationToken = default) => inner.StartAsync(cancellationToken);

    public ValueTask PauseAsync(CancellationToken cancellationToken = default) => inner.PauseAsync(cancellationToken);

    public void Resume() => inner.Resume();

    public async ValueTask<IMachineSnapshot> CaptureAsync(CaptureOptions options, CancellationToken cancellationToken = default) =>
        await catalog
            .CaptureAsync(open, cut => inner.CaptureAsync(options with { Disks = cut }, cancellationToken), cancellationToken)
            .ConfigureAwait(false);

    public void RefuseRequest(GuestRequestRefusal refusal) => inner.RefuseRequest(refusal);

    public void CompleteFork(Guid child) => inner.CompleteFork(child);

    public void RequestStop() => inner.RequestStop();

    public void KillApp() => inner.KillApp();

    public void Kill() => inner.Kill();

    public ValueTask<int> WriteConsoleAsync(ReadOnlyMemory<byte> input, CancellationToken cancellationToken = default) =>
        inner.WriteConsoleAsync(input, cancellationToken);

    public TFeature? GetFeature<TFeature>()
        where TFeature : class => inner.GetFeature<TFeature>();

    public ValueTask DisposeAsync()
    {
        lock (open)
        {
            return new ValueTask(_disposal ??= DisposeCoreAsync());
        }
    }

    private async Task DisposeCoreAsync()
    {
        await Task.CompletedTask.ConfigureAwait(ConfigureAwaitOptions.ForceYielding);
        try
        {
            await inner.DisposeAsync().ConfigureAwait(false);
        }
        finally
        {
            await catalog.CloseAsync(open).ConfigureAwait(false);
        }
    }
}
