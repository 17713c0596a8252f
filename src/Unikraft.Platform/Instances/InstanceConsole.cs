using System.IO.Pipelines;

namespace Unikraft.Platform.Instances;

/// <summary>One attachment to the console of an instance: two pipes, each with a pump of its own.</summary>
internal sealed class InstanceConsole : IInstanceConsole
{
    private readonly InstanceController _instance;
    private readonly Pipe _output = new();
    private readonly Pipe _input = new();
    private readonly CancellationTokenSource _detached = new();
    private readonly Task _pumps;
    private Task? _disposal;

    public InstanceConsole(InstanceController instance, bool fromStart)
    {
        _instance = instance;
        long offset = fromStart ? 0 : instance.Log.End;
        _pumps = Task.WhenAll(PumpOutputAsync(offset), PumpInputAsync());
    }

    public PipeReader Output => _output.Reader;

    public PipeWriter Input => _input.Writer;

    public ValueTask DisposeAsync()
    {
        TaskCompletionSource disposed = new(TaskCreationOptions.RunContinuationsAsynchronously);
        return Interlocked.CompareExchange(ref _disposal, disposed.Task, null) is { } earlier
            ? new ValueTask(earlier)
            : new ValueTask(DetachAsync(disposed));
    }

    private async Task DetachAsync(TaskCompletionSource disposed)
    {
        await _detached.CancelAsync().ConfigureAwait(false);
        await _pumps.ConfigureAwait(false);
        _detached.Dispose();
        disposed.SetResult();
    }

    private async Task PumpOutputAsync(long offset)
    {
        await Task.CompletedTask.ConfigureAwait(ConfigureAwaitOptions.ForceYielding);
        PipeWriter writer = _output.Writer;
        try
        {
            while (await _instance.Log.WaitAsync(offset, _detached.Token).ConfigureAwait(false))
            {
                Memory<byte> memory = writer.GetMemory(InstanceLog.ChunkSize);
                writer.Advance(_instance.Log.Read(ref offset, memory.Span));
                FlushResult flushed = await writer.FlushAsync(_detached.Token).ConfigureAwait(false);
                if (flushed.IsCompleted)
                {
                    break;
                }
            }
        }
        catch (OperationCanceledException) when (_detached.IsCancellationRequested)
        {
            // Detached: the reader sees the end of the output.
        }

        await writer.CompleteAsync().ConfigureAwait(false);
    }

    private async Task PumpInputAsync()
    {
        await Task.CompletedTask.ConfigureAwait(ConfigureAwaitOptions.ForceYielding);
        PipeReader reader = _input.Reader;
        Exception? failure = null;
        try
        {
            while (true)
            {
                ReadResult read = await reader.ReadAsync(_detached.Token).ConfigureAwait(false);
                if (read.Buffer.IsEmpty)
                {
                    if (read.IsCompleted)
                    {
                        break;
                    }

                    reader.AdvanceTo(read.Buffer.End);
                    continue;
                }

                // Only what the machine has taken is consumed: the rest waits for the next start.
                int taken = await _instance.WriteConsoleAsync(read.Buffer.First, _detached.Token).ConfigureAwait(false);
                reader.AdvanceTo(read.Buffer.GetPosition(taken));
            }
        }
        catch (OperationCanceledException) when (_detached.IsCancellationRequested)
        {
            // Detached: the writer sees that nobody reads any more.
        }
        catch (ResourceNotFoundException)
        {
            // The instance is gone, and with it who could read.
        }
        catch (ObjectDisposedException)
        {
            // The platform is gone, likewise.
        }
        catch (HypervisorException error)
        {
            // The writer gets it from its next flush.
            failure = error;
        }

        await reader.CompleteAsync(failure).ConfigureAwait(false);
    }
}
