using Unikraft.Platform.Kvm.Interop;

namespace Unikraft.Platform.Kvm.Memory;

/// <summary>
/// The pages that changed between two snapshots, immutable, shared by everything that builds on them and freed with the last user.
/// </summary>
/// <remarks>
/// A sealed, sparse memory file in which every page lies at its guest physical address: runs of pages are mapped with one call, whatever layer
/// they come from.
/// </remarks>
internal sealed class MemoryLayer
{
    private readonly DescriptorHandle _file;
    private int _references = 1;

    internal MemoryLayer(DescriptorHandle file, long storedBytes)
    {
        _file = file;
        StoredBytes = storedBytes;
    }

    /// <summary>Bytes of memory that the layer holds.</summary>
    internal long StoredBytes { get; }

    /// <exception cref="ObjectDisposedException">The last reference is gone, and the layer with it.</exception>
    internal void AddReference()
    {
        // Counted up from 1 or more only: a refused attempt must not bring the layer back to life.
        int references = Volatile.Read(ref _references);
        int seen;
        do
        {
            ObjectDisposedException.ThrowIf(references == 0, this);
            seen = references;
            references = Interlocked.CompareExchange(ref _references, seen + 1, seen);
        }
        while (references != seen);
    }

    internal void Release()
    {
        if (Interlocked.Decrement(ref _references) == 0)
        {
            _file.Dispose();
        }
    }

    /// <summary>Maps a run of pages copy-on-write over a part of guest memory.</summary>
    internal void Map(nint address, long offset, int length)
    {
        bool added = false;
        try
        {
            _file.DangerousAddRef(ref added);
            nint mapped = Libc.MemoryMap(
                address,
                (nuint)length,
                Libc.ProtectionRead | Libc.ProtectionWrite,
                Libc.MapPrivate | Libc.MapFixed | Libc.MapNoReserve,
                (int)_file.DangerousGetHandle(),
                offset);
            if (mapped == -1)
            {
                throw HostError.Last("Mapping a memory layer");
            }

            _ = Libc.MemoryAdvise(address, (nuint)length, Libc.AdviseDontDump);
        }
        finally
        {
            if (added)
            {
                _file.DangerousRelease();
            }
        }
    }

    /// <summary>Copies a run of pages.</summary>
    internal unsafe void Read(Span<byte> destination, long offset)
    {
        fixed (byte* first = destination)
        {
            int done = 0;
            while (done < destination.Length)
            {
                nint read = Libc.ReadAt(_file, (nint)first + done, (nuint)(destination.Length - done), offset + done);
                if (read <= 0)
                {
                    throw read < 0 ? HostError.Last("Reading a memory layer") : new HypervisorException("A memory layer is shorter than its index.");
                }

                done += (int)read;
            }
        }
    }
}
