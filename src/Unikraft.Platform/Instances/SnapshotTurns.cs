namespace Unikraft.Platform.Instances;

/// <summary>Whose turn it is to take a snapshot of an instance: one at a time, in the order of asking. Guarded by the lock of its owner.</summary>
internal sealed class SnapshotTurns
{
    private readonly Queue<TaskCompletionSource> _waiting = [];
    private bool _taken;

    /// <summary>Takes the turn, unless somebody has it.</summary>
    public bool TryTake()
    {
        bool isFree = !_taken;
        _taken = true;
        return isFree;
    }

    /// <summary>Waits for the turn, which belongs to the caller when the task completes and never when it is cancelled.</summary>
    public Task TakeAsync(CancellationToken cancellationToken)
    {
        if (TryTake())
        {
            return Task.CompletedTask;
        }

        TaskCompletionSource turn = new(TaskCreationOptions.RunContinuationsAsynchronously);
        CancellationTokenRegistration registration = cancellationToken.Register(() => turn.TrySetCanceled(cancellationToken));
        _ = turn.Task.ContinueWith(_ => registration.Dispose(), CancellationToken.None, TaskContinuationOptions.None, TaskScheduler.Default);
        _waiting.Enqueue(turn);
        return turn.Task;
    }

    /// <summary>Gives the turn to the next who still waits for it.</summary>
    public void Pass()
    {
        _taken = false;
        while (!_taken && _waiting.TryDequeue(out TaskCompletionSource? next))
        {
            _taken = next.TrySetResult();
        }
    }
}
