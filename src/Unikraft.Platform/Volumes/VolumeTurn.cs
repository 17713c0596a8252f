using System.Diagnostics.CodeAnalysis;

namespace Unikraft.Platform.Volumes;

/// <summary>One operation on the images of a volume at a time. Long work in the background gives way to whoever else wants to.</summary>
[SuppressMessage("Design", "CA1001:Types that own disposable fields should be disposable", Justification = "The semaphore has no wait handle, and what gives way no timer.")]
internal sealed class VolumeTurn
{
    private readonly SemaphoreSlim _semaphore = new(1, 1);
    private CancellationTokenSource? _givingWay;
    private int _waiting;

    /// <summary>Waits for the turn, and has work in the background give way.</summary>
    public async Task WaitAsync(CancellationToken cancellationToken = default)
    {
        // Counted before it is looked who has the turn, and the other way round there: one of both sees the other.
        Interlocked.Increment(ref _waiting);
        try
        {
            Task turn = _semaphore.WaitAsync(cancellationToken);
            if (!turn.IsCompleted)
            {
                HaveGiveWay();
            }

            await turn.ConfigureAwait(false);
        }
        finally
        {
            Interlocked.Decrement(ref _waiting);
        }
    }

    /// <summary>For whoever has the turn: cancelled when somebody waits for it, also when somebody does already.</summary>
    public CancellationToken GiveWay()
    {
        CancellationTokenSource givingWay = new();
        Interlocked.Exchange(ref _givingWay, givingWay);
        if (Volatile.Read(ref _waiting) > 0)
        {
            givingWay.Cancel();
        }

        return givingWay.Token;
    }

    public void Release()
    {
        Volatile.Write(ref _givingWay, null);
        _semaphore.Release();
    }

    // Not later, on another thread: a short fold would be done before it has heard of it.
    private void HaveGiveWay() => Volatile.Read(ref _givingWay)?.Cancel();
}
