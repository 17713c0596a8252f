namespace Unikraft.Platform.Kvm.Devices;

/// <summary>What the guest can read from its console: a bounded queue of bytes.</summary>
/// <remarks>
/// Writers are callers of the platform, readers are vCPUs, and each side has a lock of its own: a vCPU that stands still for a snapshot must not
/// wait for a caller.
/// </remarks>
/// <param name="setAvailable">Called when there is something to read, and when there is nothing any more.</param>
internal sealed class ConsoleInput(Action<bool> setAvailable)
{
    /// <summary>The most bytes that can wait.</summary>
    internal const int Capacity = 64 << 10;

    private readonly Lock _writers = new();
    private readonly Lock _readers = new();

    // Most guests never get input, so the room for it is made when some comes.
    private byte[] _ring = [];

    /// <summary>How many bytes were ever put in and taken out. Each is changed by its own side only.</summary>
    private long _put;
    private long _taken;
    private bool _closed;
    private TaskCompletionSource? _room;

    /// <summary>Makes the input of a flat guest, which is told by an event.</summary>
    internal ConsoleInput(IMachineControl control)
        : this(available =>
        {
            if (available)
            {
                control.Raise(GuestEvents.ConsoleInput);
            }
            else
            {
                control.Lower(GuestEvents.ConsoleInput);
            }
        })
    {
    }

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
                setAvailable(true);
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
                setAvailable(false);
                if (Waiting > 0)
                {
                    // A writer came between, and may have raised the event before it was lowered.
                    setAvailable(true);
                }
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
            setAvailable(true);
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
