using System.Numerics;
using System.Runtime.InteropServices;
using Unikraft.Platform.Kvm.Memory;

namespace Unikraft.Platform.Kvm.Devices.Virtio;

/// <summary>
/// A split virtqueue, the device's side of it. What it finds in guest memory is read once, checked and then used: a driver may change all of it
/// at any moment.
/// </summary>
/// <remarks>One thread at a time takes requests; any thread gives them back.</remarks>
internal sealed class Virtqueue
{
    internal const int MaxSize = 256;

    /// <summary>The most descriptors of one request, those of an indirect table included.</summary>
    internal const int MaxSegments = 256;

    private const int DescriptorSize = 16;
    private const int UsedElementSize = 8;
    private const int RingHeader = 4;

    private const ushort HasNext = 1;
    private const ushort IsWritable = 2;
    private const ushort IsIndirect = 4;
    private const ushort NoInterrupt = 1;
    private const ushort NoNotify = 1;

    private readonly GuestMemory _memory;

    /// <summary>What the driver has set, with offsets in guest memory for addresses.</summary>
    private readonly VirtqueueSettings _settings;
    private readonly Lock _used = new();
    private readonly Stack<VirtqueueRequest> _spare = new();

    /// <summary>What the next request is put in. Belongs to who takes requests.</summary>
    private VirtqueueRequest? _next;

    /// <summary>Where the last request began: most drivers have the next one in the same place. Belongs to who takes requests.</summary>
    private (long Descriptor, long Buffer) _last;

    private Virtqueue(GuestMemory memory, VirtqueueSettings settings, ushort nextAvailable, ushort nextUsed)
    {
        _memory = memory;
        _settings = settings;
        NextAvailable = nextAvailable;
        NextUsed = nextUsed;
    }

    /// <summary>How many requests were taken.</summary>
    internal ushort NextAvailable { get; private set; }

    /// <summary>How many requests were given back.</summary>
    internal ushort NextUsed { get; private set; }

    internal int Size => (int)_settings.Size;

    private int IndexMask => Size - 1;

    /// <summary>Makes the queue a driver wants.</summary>
    /// <returns>The queue, or null when it is not all in guest memory or breaks the rules of alignment and size.</returns>
    internal static Virtqueue? TryCreate(GuestMemory memory, VirtqueueSettings settings, ushort nextAvailable = 0, ushort nextUsed = 0)
    {
        return TryLocate(memory.Size, memory.Gap, settings, out VirtqueueSettings located)
            ? new Virtqueue(memory, located, nextAvailable, nextUsed)
            : null;
    }

    /// <summary>Whether a queue is all in a memory and keeps the rules of alignment and size.</summary>
    internal static bool IsSound(long memorySize, MemoryGap gap, VirtqueueSettings settings) => TryLocate(memorySize, gap, settings, out _);

    /// <summary>Takes the next request.</summary>
    /// <returns>The request, or null when there is none.</returns>
    /// <exception cref="InvalidDataException">There is no making sense of it.</exception>
    internal VirtqueueRequest? TryTake()
    {
        // Before the index is read: behind it every step counts.
        VirtqueueRequest request = _next ??= Rent();
        ushort published = _memory.Read<ushort>((long)_settings.Available + sizeof(ushort));
        ushort waiting = (ushort)(published - NextAvailable);
        if (waiting == 0)
        {
            return null;
        }

        if (waiting > Size)
        {
            throw new InvalidDataException("The available index is farther ahead than the queue is long.");
        }

        // What the index publishes must not be read before it.
        Volatile.ReadBarrier();
        long place = (long)_settings.Available + RingHeader + sizeof(ushort) * (NextAvailable & IndexMask);

        // Each of these was last written by another processor. They come at once, instead of one after the other, where the guess is right.
        _memory.Prefetch(place);
        _memory.Prefetch(_last.Descriptor);
        _memory.Prefetch(_last.Buffer);
        ushort head = _memory.Read<ushort>(place);
        request.Begin(head);
        Collect(request, head);
        _last = ((long)_settings.Descriptors + DescriptorSize * head, request.Start);
        _next = null;
        NextAvailable++;
        if (waiting > 1)
        {
            // On its way while this one is done.
            ushort next = _memory.Read<ushort>((long)_settings.Available + RingHeader + sizeof(ushort) * (NextAvailable & IndexMask));
            _memory.Prefetch((long)_settings.Descriptors + DescriptorSize * next);
        }

        return request;
    }

    /// <summary>Whether the driver has published a request that was not taken; what it is remains to be seen.</summary>
    internal bool HasWaiting => _memory.Read<ushort>((long)_settings.Available + sizeof(ushort)) != NextAvailable;

    /// <summary>Tells the driver whether it needs to notify.</summary>
    internal void SetSuppressed(bool isSuppressed) => _memory.Write((long)_settings.Used, isSuppressed ? NoNotify : (ushort)0);

    /// <summary>Gives a request back.</summary>
    /// <param name="request">The request. Not to be used any more.</param>
    /// <param name="written">How many bytes were written to it.</param>
    /// <returns>Whether the driver wants an interrupt.</returns>
    internal bool Return(VirtqueueRequest request, int written)
    {
        lock (_used)
        {
            long element = (long)_settings.Used + RingHeader + UsedElementSize * (NextUsed & IndexMask);
            MemoryMarshal.Write(_memory.Slice(element, UsedElementSize), request.Head | ((ulong)(uint)written << 32));

            // The driver looks at the element when it sees the index.
            Volatile.WriteBarrier();
            NextUsed++;
            MemoryMarshal.Write(_memory.Slice((long)_settings.Used + sizeof(ushort), sizeof(ushort)), NextUsed);

            // Not before the driver can go on. The request counts as under way meanwhile, and no snapshot is taken without what is marked here.
            _memory.MarkWritten((long)_settings.Used, RingHeader + UsedElementSize * Size);
            request.MarkWritten();
            _spare.Push(request);
        }

        // Either the driver sees the index, or this sees that the driver wants to be told.
        Interlocked.MemoryBarrier();
        return (_memory.Read<ushort>((long)_settings.Available) & NoInterrupt) == 0;
    }

    private static bool TryLocate(long memorySize, MemoryGap gap, VirtqueueSettings settings, out VirtqueueSettings located)
    {
        uint size = settings.Size;
        located = settings;
        if (size is 0 or > MaxSize || !BitOperations.IsPow2(size)
            || settings.Descriptors % 16 != 0 || settings.Available % 2 != 0 || settings.Used % 4 != 0
            || !gap.TryLocate(memorySize, settings.Descriptors, DescriptorSize * size, out long descriptors)
            || !gap.TryLocate(memorySize, settings.Available, RingHeader + sizeof(ushort) * size, out long available)
            || !gap.TryLocate(memorySize, settings.Used, RingHeader + UsedElementSize * size, out long used))
        {
            return false;
        }

        located = settings with { Descriptors = (ulong)descriptors, Available = (ulong)available, Used = (ulong)used };
        return true;
    }

    private bool TryLocate(Descriptor descriptor, out long offset) =>
        _memory.Gap.TryLocate(_memory.Size, descriptor.Address, descriptor.Length, out offset);

    private VirtqueueRequest Rent()
    {
        lock (_used)
        {
            return _spare.TryPop(out VirtqueueRequest? spare) ? spare : new VirtqueueRequest(_memory);
        }
    }

    private void Collect(VirtqueueRequest request, ushort head)
    {
        long table = (long)_settings.Descriptors;
        uint entries = _settings.Size;
        uint index = head;
        bool isInTable = false;

        // A loop of descriptors ends here like every chain that is too long.
        for (int count = 0; count < MaxSegments; count++)
        {
            if (index >= entries)
            {
                throw new InvalidDataException("A descriptor is outside its table.");
            }

            Descriptor descriptor = ReadDescriptor(table + index * DescriptorSize);
            if (!TryLocate(descriptor, out long offset))
            {
                throw new InvalidDataException("A buffer or an indirect table is outside guest memory.");
            }

            if ((descriptor.Flags & IsIndirect) != 0)
            {
                if (isInTable || (descriptor.Flags & HasNext) != 0 || descriptor.Length % DescriptorSize != 0 || descriptor.Length == 0)
                {
                    throw new InvalidDataException("An indirect table is not one.");
                }

                isInTable = true;
                table = offset;
                entries = descriptor.Length / DescriptorSize;
                index = 0;
                continue;
            }

            request.Add(offset, descriptor.Length, (descriptor.Flags & IsWritable) != 0);
            if ((descriptor.Flags & HasNext) == 0)
            {
                return;
            }

            index = descriptor.Next;
        }

        throw new InvalidDataException("A chain of descriptors is too long or a loop.");
    }

    private Descriptor ReadDescriptor(long address)
    {
        // Its fields are read one by one, each of them once.
        ulong buffer = _memory.Read<ulong>(address);
        ulong rest = _memory.Read<ulong>(address + sizeof(ulong));
        return new Descriptor(buffer, (uint)rest, (ushort)(rest >> 32), (ushort)(rest >> 48));
    }

    [StructLayout(LayoutKind.Auto)]
    private readonly record struct Descriptor(ulong Address, uint Length, ushort Flags, ushort Next);
}
