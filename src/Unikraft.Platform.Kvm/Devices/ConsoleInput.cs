namespace Unikraft.Platform.Kvm.Devices;

/// <summary>What the guest can read from its console: a bounded queue of bytes.</summary>
/// <param name="setAvailable">Called with the lock held when there is something to read, and when there is nothing any more.</param>
internal sealed class ConsoleInput(Action<bool> setAvailable)
{
    private const int Capacity = 64 << 10;

    private readonly Lock _lock = new();

    // Most guests never get input, so the room for it is made when some comes.
    private byte[] _ring = [];
    private int _start;
    private int _count;
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

    /// <summary>Takes as many bytes as there is room for, and waits while there is none.</summary>
    /// <returns>How many bytes were taken; 0 when the machine has ended.</returns>
    internal async ValueTask<int> WriteAsync(ReadOnlyMemory<byte> input, CancellationToken cancellationToken)
    {
        while (true)
        {
            cancellationToken.ThrowIfCancellationRequested();
            Task room;
            lock (_lock)
            {
                if (_closed || input.IsEmpty)
                {
                    return 0;
                }

                int taken = Put(input.Span);
                if (taken > 0)
                {
                    setAvailable(true);
                    return taken;
                }

                _room ??= new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
                room = _room.Task;
            }

            await room.WaitAsync(cancellationToken).ConfigureAwait(false);
        }
    }

    /// <summary>Moves waiting bytes to the guest.</summary>
    /// <returns>How many there were.</returns>
    internal int Read(Span<byte> destination)
    {
        lock (_lock)
        {
            int length = Math.Min(destination.Length, _count);
            int first = Math.Min(length, Capacity - _start);
            _ring.AsSpan(_start, first).CopyTo(destination);
            _ring.AsSpan(0, length - first).CopyTo(destination[first..]);
            _start = (_start + length) % Capacity;
            _count -= length;
            if (_count == 0)
            {
                setAvailable(false);
            }

            if (length > 0)
            {
                _room?.SetResult();
                _room = null;
            }

            return length;
        }
    }

    /// <summary>A copy of what waits, for a snapshot.</summary>
    internal byte[] Save()
    {
        lock (_lock)
        {
            byte[] copy = new byte[_count];
            int first = Math.Min(_count, Capacity - _start);
            _ring.AsSpan(_start, first).CopyTo(copy);
            _ring.AsSpan(0, _count - first).CopyTo(copy.AsSpan(first));
            return copy;
        }
    }

    /// <summary>Puts back what a snapshot held.</summary>
    internal void Restore(ReadOnlySpan<byte> saved)
    {
        lock (_lock)
        {
            Put(saved);
            if (_count > 0)
            {
                setAvailable(true);
            }
        }
    }

    /// <summary>Refuses further input and lets waiting writers go.</summary>
    internal void Close()
    {
        lock (_lock)
        {
            _closed = true;
            _room?.SetResult();
            _room = null;
        }
    }

    private int Put(ReadOnlySpan<byte> bytes)
    {
        int length = Math.Min(bytes.Length, Capacity - _count);
        if (length > 0 && _ring.Length == 0)
        {
            _ring = new byte[Capacity];
        }

        int end = (_start + _count) % Capacity;
        int first = Math.Min(length, Capacity - end);
        bytes[..first].CopyTo(_ring.AsSpan(end));
        bytes[first..length].CopyTo(_ring);
        _count += length;
        return length;
    }
}
