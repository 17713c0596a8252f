namespace Unikraft.Platform.Kvm.Devices;

/// <summary>What the guest can read from its console: a bounded queue of bytes.</summary>
/// <remarks>
/// Writers are callers of the platform, readers are vCPUs, and each side has a lock of its own: a vCPU that stands still for a snapshot must not
/// wait for a caller.
/// </remarks>
internal sealed class ConsoleInput
{
    /// <summary>The most bytes that can wait.</summary>
    internal const int Capacity = 64 << 10;

    private readonly IMachineControl? _control;
    private readonly Func<bool> _isAnyWaiting;
    private readonly Lock _writers = new();
    private readonly Lock _readers = new();

    // Most guests never get input, so the room for it is made when some comes.
    private byte[] _ring = [];

    /// <summary>How many bytes were ever put in and taken out. Each is changed by its own side only.</summary>
    private long _put;
    private long _taken;
    private bool _closed;
    private TaskCompletionSource? _room;

    /// <param name="control">Where the event of a flat guest is pending while there is something to read. Default: the guest finds out otherwise.</param>
    internal ConsoleInput(IMachineControl? control = null)
    {
        _control = control;
        _isAnyWaiting = () => IsAnyWaiting;
    }

    /// <summary>Whether there is something to read. Takes no lock.</summary>
    internal bool IsAnyWaiting => Waiting > 0;

    private int Waiting => (int)(Volatile.Read(ref _put) - Volatile.Read(ref _taken));

    /// <summary>Takes as many bytes as there is room for, and waits while there is none.</summary>
    /// <returns>How many bytes were taken; 0 when the machine has ended.</returns>
    internal async ValueTask<int> WriteAsync(ReadOnlyMemory<byte> input, CancellationToken cancellationToken)
    {
        while (true)
        {
            cancellationToken.ThrowIfCancellationRequested();
            Task room;
            int taken;
            lock (_writers)
            {
                if (_closed || input.IsEmpty)
                {
                    return 0;
                }

                taken = Put(input.Span);
                if (taken == 0)
                {
                    _room ??= new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);

                    // A reader that makes room from now on tells; one that did before is found here.
                    Interlocked.MemoryBarrier();
                    taken = Put(input.Span);
                }

                room = _room?.Task ?? Task.CompletedTask;
            }

            if (taken > 0)
            {
                Tell();
                return taken;
            }

            await room.WaitAsync(cancellationToken).ConfigureAwait(false);
        }
    }

    /// <summary>Moves waiting bytes to the guest.</summary>
    /// <returns>How many there were.</returns>
    internal int Read(Span<byte> destination)
    {
        lock (_readers)
        {
            int length = Peek(destination);
            Volatile.Write(ref _taken, _taken + length);
            if (Waiting == 0)
            {
                Tell();
            }

            Interlocked.MemoryBarrier();
            if (length > 0 && Volatile.Read(ref _room) is not null)
            {
                LetWritersGo();
            }

            return length;
        }
    }

    /// <summary>Copies what waits, without taking it. Only while no vCPU runs. Takes no lock and allocates nothing.</summary>
    /// <returns>How many bytes there were.</returns>
    internal int Peek(Span<byte> destination)
    {
        int length = Math.Min(destination.Length, Waiting);
        int start = (int)(_taken % Capacity);
        int first = Math.Min(length, Capacity - start);
        if (length > 0)
        {
            _ring.AsSpan(start, first).CopyTo(destination);
            _ring.AsSpan(0, length - first).CopyTo(destination[first..]);
        }

        return length;
    }

    /// <summary>Puts back what a snapshot held.</summary>
    internal void Restore(ReadOnlySpan<byte> saved) => Offer(saved);

    /// <summary>Takes as many bytes as there is room for at once, and leaves the others out.</summary>
    internal void Offer(ReadOnlySpan<byte> bytes)
    {
        lock (_writers)
        {
            Put(bytes);
        }

        if (!bytes.IsEmpty)
        {
            Tell();
        }
    }

    /// <summary>Refuses further input and lets waiting writers go.</summary>
    internal void Close()
    {
        lock (_writers)
        {
            _closed = true;
        }

        LetWritersGo();
    }

    // Not what this side knows: a guest that has read a line already must not be told of it, nor one be left asleep over the next.
    private void Tell() => _control?.Follow(GuestEvents.ConsoleInput, _isAnyWaiting);

    private void LetWritersGo()
    {
        lock (_writers)
        {
            _room?.SetResult();
            _room = null;
        }
    }

    private int Put(ReadOnlySpan<byte> bytes)
    {
        int length = Math.Min(bytes.Length, Capacity - Waiting);
        if (length > 0 && _ring.Length == 0)
        {
            _ring = new byte[Capacity];
        }

        int end = (int)(_put % Capacity);
        int first = Math.Min(length, Capacity - end);
        bytes[..first].CopyTo(_ring.AsSpan(end));
        bytes[first..length].CopyTo(_ring);
        Volatile.Write(ref _put, _put + length);
        return length;
    }
}
