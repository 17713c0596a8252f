using System.Threading.Channels;
using Microsoft.Extensions.Logging;
using Unikraft.Platform.Kvm.Snapshots;

namespace Unikraft.Platform.Kvm.Machines;

/// <summary>
/// Gives back what ended machines held, one after the other in the background: the kernel takes milliseconds for it, which nobody should wait
/// for. Who ends machines faster than that does wait, from <see cref="MaxPending"/> on.
/// </summary>
internal sealed class Reclaimer : IAsyncDisposable
{
    private const int MaxPending = 64;

    private readonly Channel<Func<ValueTask>> _pending = Channel.CreateBounded<Func<ValueTask>>(
        new BoundedChannelOptions(MaxPending) { SingleReader = true });
    private readonly ILogger _logger;
    private readonly Task _work;

    internal Reclaimer(ILogger logger)
    {
        _logger = logger;
        _work = BackgroundWork.BeginDetached(WorkAsync);
    }

    /// <summary>Takes over a shell whose machine has ended.</summary>
    internal ValueTask TakeAsync(MachineShell shell) => TakeAsync(shell.DisposeAsync);

    /// <summary>Takes over a step of the work. Waits only for room among those that are waiting.</summary>
    internal async ValueTask TakeAsync(Func<ValueTask> step)
    {
        while (await _pending.Writer.WaitToWriteAsync().ConfigureAwait(false))
        {
            if (_pending.Writer.TryWrite(step))
            {
                return;
            }
        }

        // The backend is gone already: then whoever comes late does it himself.
        await step().ConfigureAwait(false);
    }

    /// <summary>Waits until everything taken so far has been given back.</summary>
    internal async Task FlushAsync()
    {
        TaskCompletionSource flushed = new(TaskCreationOptions.RunContinuationsAsynchronously);
        await TakeAsync(() =>
        {
            flushed.SetResult();
            return ValueTask.CompletedTask;
        }).ConfigureAwait(false);
        await flushed.Task.ConfigureAwait(false);
    }

    public async ValueTask DisposeAsync()
    {
        _pending.Writer.TryComplete();
        await _work.ConfigureAwait(false);
    }

    private async Task WorkAsync()
    {
        await foreach (Func<ValueTask> step in _pending.Reader.ReadAllAsync().ConfigureAwait(false))
        {
            try
            {
                await step().ConfigureAwait(false);
            }
            catch (Exception error)
            {
                // Nobody waits for the step, and those behind it must not wait for ever.
                Log.ReclaimingFailed(_logger, error);
            }
        }
    }
}
