using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Kvm.Machines;
using Unikraft.Platform.Kvm.Snapshots;

namespace Unikraft.Platform.Kvm.Tests.Testing;

/// <summary>A backend whose snapshots are pending until the test releases them; or until something was done in each, last before its machine stands still.</summary>
/// <param name="inner">The backend.</param>
/// <param name="beforeCut">What is done; <see langword="null"/> when the test releases them.</param>
internal sealed class HeldCaptures(IHypervisor inner, Func<ValueTask>? beforeCut = null) : IHypervisor
{
    private readonly TaskCompletionSource _begun = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly TaskCompletionSource _released = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly Func<ValueTask>? _beforeCut = beforeCut;

    public HypervisorInfo Info => inner.Info;

    /// <summary>Completes when the first snapshot was asked for.</summary>
    internal Task Begun => _begun.Task.Guarded();

    /// <summary>Lets all snapshots be taken.</summary>
    internal void Release() => _released.SetResult();

    public async ValueTask<IVirtualMachine> CreateAsync(
        MachineConfiguration configuration,
        IMachineMonitor monitor,
        CancellationToken cancellationToken = default) =>
        new Machine(await inner.CreateAsync(configuration, monitor, cancellationToken), this);

    public async ValueTask<IVirtualMachine> RestoreAsync(
        IMachineSnapshot snapshot,
        Guid uuid,
        IMachineMonitor monitor,
        IReadOnlyList<MachineDisk> disks,
        CancellationToken cancellationToken = default) =>
        new Machine(await inner.RestoreAsync(snapshot, uuid, monitor, disks, cancellationToken), this);

    public TFeature? GetFeature<TFeature>()
        where TFeature : class => inner.GetFeature<TFeature>();

    public ValueTask DisposeAsync() => inner.DisposeAsync();

    private sealed class Machine(IVirtualMachine machine, HeldCaptures held) : IVirtualMachine
    {
        public Task<MachineExit> Exited => machine.Exited;

        public bool HasReachedMain => machine.HasReachedMain;

        public async ValueTask<IMachineSnapshot> CaptureAsync(CaptureOptions options, CancellationToken cancellationToken = default)
        {
            held._begun.TrySetResult();
            if (held._beforeCut is { } beforeCut)
            {
                return await ((KvmMachine)machine).CaptureAsync(options, new CaptureHooks(BeforeCut: beforeCut), cancellationToken);
            }

            await held._released.Task.WaitAsync(cancellationToken);
            return await machine.CaptureAsync(options, cancellationToken);
        }

        public ValueTask StartAsync(CancellationToken cancellationToken = default) => machine.StartAsync(cancellationToken);

        public ValueTask PauseAsync(CancellationToken cancellationToken = default) => machine.PauseAsync(cancellationToken);

        public void Resume() => machine.Resume();

        public void RefuseRequest(GuestRequestRefusal refusal) => machine.RefuseRequest(refusal);

        public void CompleteFork(Guid child) => machine.CompleteFork(child);

        public void RequestStop() => machine.RequestStop();

        public void KillApp() => machine.KillApp();

        public void Kill() => machine.Kill();

        public ValueTask<int> WriteConsoleAsync(ReadOnlyMemory<byte> input, CancellationToken cancellationToken = default) =>
            machine.WriteConsoleAsync(input, cancellationToken);

        public TFeature? GetFeature<TFeature>()
            where TFeature : class => machine.GetFeature<TFeature>();

        public ValueTask DisposeAsync() => machine.DisposeAsync();
    }
}
