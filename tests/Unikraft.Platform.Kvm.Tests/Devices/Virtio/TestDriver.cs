using System.Buffers.Binary;
using Unikraft.Platform.Kvm.Devices;
using Unikraft.Platform.Kvm.Devices.Virtio;
using Unikraft.Platform.Kvm.Memory;
using Unikraft.Platform.Kvm.Tests.Testing;

namespace Unikraft.Platform.Kvm.Tests.Devices.Virtio;

/// <summary>The driver of a virtio device: what a guest does, without one.</summary>
internal sealed class TestDriver : IMmioInitiator, IDisposable
{
    internal const ulong Version1 = 1UL << 32;
    internal const ulong FlushFeature = 1UL << 9;
    internal const int QueueSize = 16;
    internal const long Descriptors = 0x1000;
    internal const long Available = 0x2000;
    internal const long Used = 0x3000;
    internal const long MemorySize = 4 << 20;
    internal const uint Running = 15;

    private const long Buffers = 0x10000;
    private const ushort Next = 1;
    private const ushort Writable = 2;
    private const ushort Indirect = 4;

    private readonly SemaphoreSlim _interrupts = new(0);
    private readonly int[] _chainLength = new int[QueueSize];
    private readonly Queue<int> _free = new(Enumerable.Range(0, QueueSize));
    private long _nextBuffer = Buffers;
    private ushort _seen;

    internal GuestMemory Memory { get; } = new(MemorySize);

    internal VirtioDevice Device { get; set; } = null!;

    public int Index => 0;

    public ulong StackPointer => 0;

    public ulong FaultAddress => 0;

    internal bool IsInterruptRaised { get; private set; }

    public void Dispose()
    {
        Memory.Dispose();
        _interrupts.Dispose();
    }

    internal void Interrupt(bool level)
    {
        IsInterruptRaised = level;
        if (level)
        {
            _ = _interrupts.Release();
        }
    }

    internal uint Read(int register)
    {
        byte[] value = new byte[4];
        Device.Read(this, (ulong)register, value);
        return BinaryPrimitives.ReadUInt32LittleEndian(value);
    }

    internal void Write(int register, uint value)
    {
        byte[] bytes = new byte[4];
        BinaryPrimitives.WriteUInt32LittleEndian(bytes, value);
        Device.Write(this, (ulong)register, bytes);
    }

    internal byte[] Configuration(int offset, int length)
    {
        byte[] value = new byte[length];
        Device.Read(this, (ulong)(0x100 + offset), value);
        return value;
    }

    /// <summary>Goes through the steps of the specification.</summary>
    internal void Start(ulong features = Version1)
    {
        Write(0x070, 0);
        Write(0x070, 1);
        Write(0x070, 3);
        Write(0x024, 0);
        Write(0x020, (uint)features);
        Write(0x024, 1);
        Write(0x020, (uint)(features >> 32));
        Write(0x070, 11);
        SetUpQueue();
        Write(0x070, Running);
    }

    internal void SetUpQueue(uint size = QueueSize, long descriptors = Descriptors, long available = Available, long used = Used)
    {
        Memory.Write(Available, new byte[64]);
        Memory.Write(Used, new byte[256]);
        _seen = 0;
        Write(0x030, 0);
        Write(0x038, size);
        WriteAddress(0x080, descriptors);
        WriteAddress(0x090, available);
        WriteAddress(0x0a0, used);
        Write(0x044, 1);
    }

    /// <summary>A place in memory for a buffer.</summary>
    internal long Allocate(int length)
    {
        long address = _nextBuffer;
        _nextBuffer += length;
        if (_nextBuffer > MemorySize)
        {
            address = Buffers;
            _nextBuffer = Buffers + length;
        }

        return address;
    }

    /// <summary>Publishes a chain of buffers, in the ring or in a table of its own.</summary>
    internal int Submit(bool isIndirect, params (long Address, int Length, bool IsWritable)[] buffers)
    {
        if (isIndirect)
        {
            long table = Allocate(16 * buffers.Length);
            WriteChain(buffers, index => table + 16 * index, [.. Enumerable.Range(0, buffers.Length)]);
            int single = _free.Dequeue();
            WriteDescriptor(Descriptors + 16 * single, table, 16 * buffers.Length, Indirect, 0);
            Publish(single);
            return single;
        }

        int[] taken = [.. Enumerable.Range(0, buffers.Length).Select(_ => _free.Dequeue())];
        WriteChain(buffers, index => Descriptors + 16 * index, taken);
        _chainLength[taken[0]] = taken.Length;
        Publish(taken[0]);
        return taken[0];
    }

    internal void Publish(int head)
    {
        ushort index = Memory.Read<ushort>(Available + 2);
        Memory.Write(Available + 4 + 2 * (index % QueueSize), (ushort)head);
        Memory.Write(Available + 2, (ushort)(index + 1));
        Write(0x050, 0);
    }

    /// <summary>The driver in a copy of its guest: it knows what this one knows, in memory of its own. It has no device yet.</summary>
    internal TestDriver Fork()
    {
        TestDriver fork = new() { _nextBuffer = _nextBuffer, _seen = _seen };
        fork.Memory.Write(0, Memory.Read(0, (int)MemorySize));
        _chainLength.CopyTo(fork._chainLength, 0);
        fork._free.Clear();
        foreach (int descriptor in _free)
        {
            fork._free.Enqueue(descriptor);
        }

        return fork;
    }

    /// <summary>Waits until the interrupt line is raised, which may be for something that the driver has seen already.</summary>
    internal Task InterruptAsync() => _interrupts.WaitAsync().Guarded();

    /// <summary>Waits for the next request that the device gives back.</summary>
    internal async Task<(int Head, int Length)> NextAsync()
    {
        while (Memory.Read<ushort>(Used + 2) == _seen)
        {
            await InterruptAsync();
            Write(0x064, 1);
        }

        long element = Used + 4 + 8 * (_seen++ % QueueSize);
        int head = Memory.Read<int>(element);
        int index = head;
        bool isIndirect = (Memory.Read<ushort>(Descriptors + 16 * index + 12) & Indirect) != 0;
        for (int count = isIndirect ? 1 : _chainLength[head]; count > 0; count--)
        {
            _free.Enqueue(index);
            index = Memory.Read<ushort>(Descriptors + 16 * index + 14);
        }

        return (head, Memory.Read<int>(element + 4));
    }

    /// <summary>Does a request of virtio-blk with data in pieces.</summary>
    /// <returns>The status.</returns>
    internal async Task<int> RequestAsync(uint operation, long sector, byte[] data, bool isRead, int pieces = 1, bool isIndirect = false)
    {
        (long status, long buffer) = Begin(operation, sector, data, isRead, pieces, isIndirect);
        (_, int length) = await NextAsync();
        int result = Memory.Read<byte>(status);
        if (isRead && result == 0)
        {
            Memory.Read(buffer, data.Length).CopyTo(data);
            Assert.Equal(data.Length + 1, length);
        }
        else if (result != 0)
        {
            Assert.Equal(1, length);
        }

        return result;
    }

    /// <summary>Begins a request of virtio-blk.</summary>
    /// <returns>Where its status and its data will be.</returns>
    internal (long Status, long Buffer) Begin(uint operation, long sector, byte[] data, bool isRead, int pieces = 1, bool isIndirect = false)
    {
        long header = Allocate(16);
        long status = Allocate(1);
        long buffer = Allocate(data.Length);
        Memory.Write(header, operation);
        Memory.Write(header + 4, 0u);
        Memory.Write(header + 8, sector);
        Memory.Write(status, (byte)0xff);
        Memory.Write(buffer, isRead ? new byte[data.Length] : data);
        List<(long, int, bool)> buffers = [(header, 16, false)];
        for (int piece = 0; piece < pieces; piece++)
        {
            int start = (int)(data.Length * (long)piece / pieces);
            int end = (int)(data.Length * (long)(piece + 1) / pieces);
            if (end > start)
            {
                buffers.Add((buffer + start, end - start, isRead));
            }
        }

        buffers.Add((status, 1, true));
        _ = Submit(isIndirect, [.. buffers]);
        return (status, buffer);
    }

    internal void WriteDescriptor(long at, long address, long length, int flags, int next)
    {
        Memory.Write(at, address);
        Memory.Write(at + 8, (uint)length);
        Memory.Write(at + 12, (ushort)flags);
        Memory.Write(at + 14, (ushort)next);
    }

    private void WriteChain((long Address, int Length, bool IsWritable)[] buffers, Func<int, long> place, int[] indexes)
    {
        for (int i = 0; i < buffers.Length; i++)
        {
            bool isLast = i == buffers.Length - 1;
            int flags = (buffers[i].IsWritable ? Writable : 0) | (isLast ? 0 : Next);
            WriteDescriptor(place(indexes[i]), buffers[i].Address, buffers[i].Length, flags, isLast ? 0 : indexes[i + 1]);
        }
    }

    private void WriteAddress(int register, long address)
    {
        Write(register, (uint)address);
        Write(register + 4, (uint)(address >> 32));
    }
}
