namespace Unikraft.Platform.Volumes.Qcow2;

/// <summary>
/// Tells when every request has ended that may have seen a mapping which is gone, so that the cluster it led to can be used for something else.
/// Lets requests go without a lock.
/// </summary>
internal sealed class RequestEpochs
{
    private readonly Counter[] _active = [new(), new()];

    private int _epoch;

    /// <summary>A request begins.</summary>
    /// <returns>What to give to <see cref="Exit"/>.</returns>
    internal int Enter()
    {
        while (true)
        {
            int epoch = Volatile.Read(ref _epoch);
            Interlocked.Increment(ref _active[epoch & 1].Value);

            // Counted in the wrong epoch, it might be overlooked.
            if (Volatile.Read(ref _epoch) == epoch)
            {
                return epoch;
            }

            Interlocked.Decrement(ref _active[epoch & 1].Value);
        }
    }

    internal void Exit(int epoch) => Interlocked.Decrement(ref _active[epoch & 1].Value);

    /// <summary>Begins an epoch. One caller at a time, and only when <see cref="HasDrained"/>.</summary>
    internal void Advance() => Interlocked.Increment(ref _epoch);

    /// <summary>Whether all requests have ended that began before the last <see cref="Advance"/>.</summary>
    internal bool HasDrained => Volatile.Read(ref _active[(_epoch + 1) & 1].Value) == 0;

    // An object each keeps the two counters apart.
    private sealed class Counter
    {
        internal int Value;
    }
}
