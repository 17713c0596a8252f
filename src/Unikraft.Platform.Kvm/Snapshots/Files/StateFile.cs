using System.Buffers.Binary;
using System.Runtime.InteropServices;
using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Kvm.Boot;
using Unikraft.Platform.Kvm.Boot.Kernels;
using Unikraft.Platform.Kvm.Devices;
using Unikraft.Platform.Kvm.Devices.Virtio;
using Unikraft.Platform.Kvm.Machines.Kernels;
using Unikraft.Platform.Kvm.Memory;
using Unikraft.Platform.Kvm.Vcpus;

namespace Unikraft.Platform.Kvm.Snapshots.Files;

/// <summary>Writes and reads state files. The layout is that of docs/snapshot-format.md; all numbers are little-endian.</summary>
/// <remarks>What is read is hostile: everything is checked before it is used, so that a machine may be restored from whatever comes out.</remarks>
internal static class StateFile
{
    internal const string Suffix = ".state";

    /// <summary>A file that tells of disks. One without is of version 1, which older platforms read too.</summary>
    internal const uint Version = 2;

    internal const int HeaderSize = 128;

    private const uint FlatGuestOnKvm = 1;
    private const uint KernelOnKvm = 2;
    private const int RangeSize = 24;
    private const int WaitSize = 32;
    private const int LayerSize = 48;
    private const int ExtentSize = 12;
    private const int DiskSize = 80;
    private const int SectorSize = 512;

    private const uint VersionWithoutDisks = 1;
    private const uint IsReadOnlyDisk = 1;

    private const uint IsShuttingDown = 1;
    private const uint HasReachedMain = 2;
    private const uint HasExitCode = 4;
    private const uint AllDeviceFlags = IsShuttingDown | HasReachedMain | HasExitCode;

    private const uint IsWaiting = 1;
    private const uint IsWakePending = 2;
    private const uint AllWaitFlags = IsWaiting | IsWakePending;

    private const uint IsWritable = 1;

    private const int UuidSize = 16;

    private static readonly int VcpuSize = WaitSize + VcpuState.RegistersSize;

    private static ReadOnlySpan<byte> Magic => "UKSTATE\u001a"u8;

    internal static string NameOf(Guid id) => $"{id:D}{Suffix}";

    internal static byte[] Encode(SnapshotState state)
    {
        byte[] bytes = new byte[LengthOf(state)];
        Write(bytes, state);
        Seal(bytes);
        return bytes;
    }

    internal static int LengthOf(SnapshotState state) => checked((int)CountsOf(state).FileLength);

    /// <summary>Writes all but the checksum at the end.</summary>
    /// <param name="bytes">Where to, zero, of the length of the file.</param>
    /// <param name="state">The state.</param>
    internal static void Write(Span<byte> bytes, SnapshotState state)
    {
        Counts counts = CountsOf(state);
        WriteHeader(bytes, state, counts);
        Span<byte> rest = bytes[HeaderSize..];
        foreach (GuestRange range in state.Layout.Image)
        {
            BinaryPrimitives.WriteInt64LittleEndian(rest, range.Start);
            BinaryPrimitives.WriteInt64LittleEndian(rest[8..], range.End);
            BinaryPrimitives.WriteUInt32LittleEndian(rest[16..], range.IsWritable ? IsWritable : 0);
            rest = rest[RangeSize..];
        }

        foreach (VcpuState vcpu in state.Vcpus)
        {
            WriteWait(rest, vcpu);
            vcpu.WriteRegisters(rest[WaitSize..]);
            rest = rest[VcpuSize..];
        }

        foreach (LayerReference layer in state.Layers)
        {
            layer.Id.TryWriteBytes(rest, bigEndian: true, out _);
            layer.Root.Write(rest[16..]);
            rest = rest[LayerSize..];
        }

        // There may be thousands, and hosts with KVM on x86 are little-endian.
        ReadOnlySpan<byte> extents = MemoryMarshal.AsBytes((state.Extents as StoredExtent[] ?? [.. state.Extents]).AsSpan());
        extents.CopyTo(rest);
        rest = rest[extents.Length..];

        foreach (DiskState disk in state.Disks)
        {
            WriteDisk(rest, disk);
            rest = rest[DiskSize..];
        }

        state.Device.ConsoleInput.CopyTo(rest);
        if (state.Kernel is { } kernel)
        {
            rest = rest[counts.ConsoleBytes..];
            kernel.Write(rest);
            rest = rest[KernelState.Size..];
            foreach (VcpuState vcpu in state.Vcpus)
            {
                vcpu.Kernel!.Write(rest);
                rest = rest[KernelRegisters.Size..];
            }
        }
    }

    private static Counts CountsOf(SnapshotState state) => new(
        state.Layout.Vcpus,
        state.Layout.Image.Count,
        state.Layers.Count,
        state.Extents.Count,
        state.Device.ConsoleInput.Length,
        state.Disks.Count,
        state.Kernel is not null);

    /// <summary>Writes the checksum behind everything else.</summary>
    internal static void Seal(Span<byte> file) => Digest.Compute(file[..^Digest.SizeInBytes]).Write(file[^Digest.SizeInBytes..]);

    /// <summary>Reads the length that a file must have, and refuses one that has another.</summary>
    /// <param name="header">The first <see cref="HeaderSize"/> bytes.</param>
    /// <param name="length">The length that the file has.</param>
    /// <exception cref="FileDamageException">It is no such file.</exception>
    internal static void CheckLength(ReadOnlySpan<byte> header, long length)
    {
        if (!header.StartsWith(Magic))
        {
            throw FileDamageException.Damaged("does not begin like a state file");
        }

        uint version = BinaryPrimitives.ReadUInt32LittleEndian(header[8..]);
        if (version is not (VersionWithoutDisks or Version))
        {
            throw new FileDamageException(
                SnapshotFileError.UnknownVersion,
                $"is in version {version} of the state format, and this version of the platform reads versions up to {Version}");
        }

        long expected = ReadCounts(header).FileLength;
        if (length != expected || BinaryPrimitives.ReadInt64LittleEndian(header[16..]) != expected)
        {
            throw FileDamageException.Damaged($"has {length} bytes instead of {expected}");
        }
    }

    /// <summary>Reads a complete file.</summary>
    /// <exception cref="FileDamageException">It is not as it was written, or could not have been written.</exception>
    internal static SnapshotState Decode(ReadOnlySpan<byte> file)
    {
        if (file.Length < HeaderSize)
        {
            throw FileDamageException.Damaged($"has {file.Length} bytes, fewer than any state file");
        }

        CheckLength(file, file.Length);
        if (Digest.Compute(file[..^Digest.SizeInBytes]) != Digest.Read(file[^Digest.SizeInBytes..]))
        {
            throw FileDamageException.Damaged("does not match its checksum");
        }

        Counts counts = ReadCounts(file);
        long memorySize = BinaryPrimitives.ReadInt64LittleEndian(file[40..]);
        long stacksStart = BinaryPrimitives.ReadInt64LittleEndian(file[48..]);
        long storedBytes = BinaryPrimitives.ReadInt64LittleEndian(file[56..]);
        long pause = BinaryPrimitives.ReadInt64LittleEndian(file[64..]);
        long throttled = BinaryPrimitives.ReadInt64LittleEndian(file[120..]);
        int depth = BinaryPrimitives.ReadInt32LittleEndian(file[80..]);
        Require(memorySize > 0 && PageSize.IsAligned(memorySize) && memorySize >> PageSize.Shift <= LayerFormat.MaxPages, "size of memory");
        Require(storedBytes >= 0 && storedBytes <= memorySize && PageSize.IsAligned(storedBytes), "number of stored bytes");
        Require(pause >= 0 && throttled >= 0, "pause");
        Require(depth >= 1, "depth");

        ReadOnlySpan<byte> rest = file[HeaderSize..];
        FlatGuestLayout layout = ReadLayout(ref rest, counts, stacksStart, memorySize);
        ReadOnlySpan<byte> kernels = counts.IsKernel ? file[^(Digest.SizeInBytes + counts.KernelBytes)..^Digest.SizeInBytes] : [];
        KernelState? kernel = counts.IsKernel ? KernelState.Read(Take(ref kernels, KernelState.Size)) : null;
        MemoryGap gap = counts.IsKernel ? KernelMemoryMap.Gap : default;
        Require(!counts.IsKernel || (kernel is not null && IsSound(kernel.Entropy, memorySize, gap)), "state of the devices");
        VcpuState[] vcpus = new VcpuState[counts.Vcpus];
        for (int i = 0; i < vcpus.Length; i++)
        {
            KernelRegisters? registers = counts.IsKernel ? KernelRegisters.Read(Take(ref kernels, KernelRegisters.Size)) : null;
            Require(!counts.IsKernel || registers is not null, "state of a vCPU");
            vcpus[i] = ReadVcpu(Take(ref rest, VcpuSize), layout, registers);
        }

        LayerReference[] layers = ReadLayers(ref rest, counts.Layers);
        StoredExtent[] extents = ReadExtents(ref rest, counts, (int)(memorySize >> PageSize.Shift));
        DiskState[] disks = ReadDisks(ref rest, counts.Disks, memorySize, gap);
        return new SnapshotState
        {
            Id = new Guid(file.Slice(24, UuidSize), bigEndian: true),
            Layout = layout,
            Vcpus = vcpus,
            Device = ReadDevice(file, Take(ref rest, counts.ConsoleBytes)),
            Kernel = kernel,
            Disks = disks,
            Layers = layers,
            Extents = extents,
            Depth = depth,
            Pause = TimeSpan.FromTicks(pause),
            Throttled = TimeSpan.FromTicks(throttled),
            StoredBytes = storedBytes,
        };
    }

    private static void WriteHeader(Span<byte> header, SnapshotState state, in Counts counts)
    {
        PlatformDeviceState device = state.Device;
        uint flags = (device.IsShuttingDown ? IsShuttingDown : 0)
            | (device.HasReachedMain ? HasReachedMain : 0)
            | (device.ExitCode is not null ? HasExitCode : 0);
        Magic.CopyTo(header);
        BinaryPrimitives.WriteUInt32LittleEndian(header[8..], counts.Disks > 0 ? Version : VersionWithoutDisks);
        BinaryPrimitives.WriteUInt32LittleEndian(header[12..], counts.IsKernel ? KernelOnKvm : FlatGuestOnKvm);
        BinaryPrimitives.WriteInt64LittleEndian(header[16..], counts.FileLength);
        state.Id.TryWriteBytes(header[24..], bigEndian: true, out _);
        BinaryPrimitives.WriteInt64LittleEndian(header[40..], state.Layout.MemorySize);
        BinaryPrimitives.WriteInt64LittleEndian(header[48..], state.Layout.StacksStart);
        BinaryPrimitives.WriteInt64LittleEndian(header[56..], state.StoredBytes);
        BinaryPrimitives.WriteInt64LittleEndian(header[64..], state.Pause.Ticks);
        BinaryPrimitives.WriteUInt64LittleEndian(header[72..], device.Monotonic);
        BinaryPrimitives.WriteInt32LittleEndian(header[80..], state.Depth);
        BinaryPrimitives.WriteInt32LittleEndian(header[84..], device.InitLevel);
        BinaryPrimitives.WriteUInt32LittleEndian(header[88..], flags);
        BinaryPrimitives.WriteInt32LittleEndian(header[92..], device.ExitCode ?? 0);
        BinaryPrimitives.WriteInt32LittleEndian(header[96..], counts.Vcpus);
        BinaryPrimitives.WriteInt32LittleEndian(header[100..], counts.Ranges);
        BinaryPrimitives.WriteInt32LittleEndian(header[104..], counts.Layers);
        BinaryPrimitives.WriteInt32LittleEndian(header[108..], counts.Extents);
        BinaryPrimitives.WriteInt32LittleEndian(header[112..], counts.ConsoleBytes);
        BinaryPrimitives.WriteUInt16LittleEndian(header[116..], (ushort)VcpuSize);
        BinaryPrimitives.WriteUInt16LittleEndian(header[118..], (ushort)counts.Disks);
        BinaryPrimitives.WriteInt64LittleEndian(header[120..], state.Throttled.Ticks);
    }

    private static Counts ReadCounts(ReadOnlySpan<byte> header)
    {
        uint kind = BinaryPrimitives.ReadUInt32LittleEndian(header[12..]);
        Require(kind is FlatGuestOnKvm or KernelOnKvm, "kind of machine");
        Counts counts = new(
            BinaryPrimitives.ReadInt32LittleEndian(header[96..]),
            BinaryPrimitives.ReadInt32LittleEndian(header[100..]),
            BinaryPrimitives.ReadInt32LittleEndian(header[104..]),
            BinaryPrimitives.ReadInt32LittleEndian(header[108..]),
            BinaryPrimitives.ReadInt32LittleEndian(header[112..]),
            BinaryPrimitives.ReadUInt16LittleEndian(header[118..]),
            kind == KernelOnKvm);
        bool hasDisks = BinaryPrimitives.ReadUInt32LittleEndian(header[8..]) == Version;
        Require(counts.Vcpus is >= 1 and <= FlatGuestLayout.MaxVcpus, "number of vCPUs");
        Require(counts.IsKernel ? counts.Ranges == 0 : counts.Ranges is >= 1 and <= ElfImage.MaxSegments, "number of ranges");
        Require(counts.Extents is >= 0 and <= LayerFormat.MaxPages, "number of extents");
        Require(counts.Layers >= 0 && counts.Layers <= counts.Extents, "number of layers");
        Require(counts.ConsoleBytes is >= 0 and <= ConsoleInput.Capacity, "number of console bytes");
        Require(BinaryPrimitives.ReadUInt16LittleEndian(header[116..]) == VcpuSize, "size of a vCPU");
        Require(counts.Disks <= MachineDisk.Slots && counts.Disks > 0 == hasDisks, "number of disks");
        return counts;
    }

    private static FlatGuestLayout ReadLayout(ref ReadOnlySpan<byte> rest, in Counts counts, long stacksStart, long memorySize)
    {
        GuestRange[] ranges = new GuestRange[counts.Ranges];
        long free = ElfImage.LowestAddress;
        for (int i = 0; i < ranges.Length; i++)
        {
            ReadOnlySpan<byte> bytes = Take(ref rest, RangeSize);
            long start = BinaryPrimitives.ReadInt64LittleEndian(bytes);
            long end = BinaryPrimitives.ReadInt64LittleEndian(bytes[8..]);
            uint flags = BinaryPrimitives.ReadUInt32LittleEndian(bytes[16..]);
            Require(start >= free && end > start && PageSize.IsAligned(start) && PageSize.IsAligned(end), "range of the image");
            Require((flags & ~IsWritable) == 0 && BinaryPrimitives.ReadUInt32LittleEndian(bytes[20..]) == 0, "range of the image");
            ranges[i] = new GuestRange(start, end, flags == IsWritable);
            free = end;
        }

        if (counts.IsKernel)
        {
            Require(stacksStart == 0, "place of the stacks");
            return new FlatGuestLayout(ranges, stacksStart, memorySize, counts.Vcpus);
        }

        // Bounded before anything is added to it.
        Require(stacksStart >= free && stacksStart <= memorySize && PageSize.IsAligned(stacksStart), "place of the stacks");
        FlatGuestLayout layout = new(ranges, stacksStart, memorySize, counts.Vcpus);
        Require(layout.MemoryNeeded <= memorySize, "place of the heap");
        return layout;
    }

    private static void WriteWait(Span<byte> bytes, VcpuState vcpu)
    {
        VcpuWait wait = vcpu.Wait.GetValueOrDefault();
        BinaryPrimitives.WriteUInt64LittleEndian(bytes, wait.Deadline);
        BinaryPrimitives.WriteUInt64LittleEndian(bytes[8..], wait.Address);
        BinaryPrimitives.WriteUInt32LittleEndian(bytes[16..], wait.Mask);
        BinaryPrimitives.WriteUInt32LittleEndian(bytes[20..], (uint)wait.Call);
        BinaryPrimitives.WriteUInt32LittleEndian(
            bytes[24..],
            (vcpu.Wait is not null ? IsWaiting : 0) | (vcpu.IsWakePending ? IsWakePending : 0));
    }

    private static VcpuState ReadVcpu(ReadOnlySpan<byte> bytes, FlatGuestLayout layout, KernelRegisters? kernel)
    {
        VcpuWait wait = new(
            BinaryPrimitives.ReadUInt64LittleEndian(bytes),
            BinaryPrimitives.ReadUInt32LittleEndian(bytes[16..]),
            (GuestCall)BinaryPrimitives.ReadUInt32LittleEndian(bytes[20..]),
            BinaryPrimitives.ReadUInt64LittleEndian(bytes[8..]));
        uint flags = BinaryPrimitives.ReadUInt32LittleEndian(bytes[24..]);
        bool isWaiting = (flags & IsWaiting) != 0;
        bool isSound = isWaiting
            ? wait.Call switch
            {
                GuestCall.Wait => wait.Address == 0,
                GuestCall.Template => wait == VcpuWait.ForRequest(GuestCall.Template, address: 0),

                // The answer is written there.
                GuestCall.Fork => wait == VcpuWait.ForRequest(GuestCall.Fork, wait.Address)
                    && layout.IsAccessible(wait.Address, UuidSize, write: true),
                _ => false,
            }
            : wait == default;
        Require(isSound && (flags & ~AllWaitFlags) == 0 && BinaryPrimitives.ReadUInt32LittleEndian(bytes[28..]) == 0, "wait of a vCPU");
        Require(kernel is null || flags == 0, "wait of a vCPU");
        return VcpuState.Load(bytes[WaitSize..], isWaiting ? wait : null, (flags & IsWakePending) != 0, kernel);
    }

    private static LayerReference[] ReadLayers(ref ReadOnlySpan<byte> rest, int count)
    {
        LayerReference[] layers = new LayerReference[count];
        HashSet<Guid> seen = new(count);
        for (int i = 0; i < count; i++)
        {
            ReadOnlySpan<byte> bytes = Take(ref rest, LayerSize);
            layers[i] = new LayerReference(new Guid(bytes[..UuidSize], bigEndian: true), Digest.Read(bytes[UuidSize..]));
            Require(seen.Add(layers[i].Id), "list of layers");
        }

        return layers;
    }

    private static StoredExtent[] ReadExtents(ref ReadOnlySpan<byte> rest, in Counts counts, int pages)
    {
        StoredExtent[] extents = new StoredExtent[counts.Extents];
        bool[] isUsed = new bool[counts.Layers];
        int free = 0;
        for (int i = 0; i < extents.Length; i++)
        {
            ReadOnlySpan<byte> bytes = Take(ref rest, ExtentSize);
            StoredExtent extent = new(
                BinaryPrimitives.ReadInt32LittleEndian(bytes),
                BinaryPrimitives.ReadInt32LittleEndian(bytes[4..]),
                BinaryPrimitives.ReadInt32LittleEndian(bytes[8..]));
            Require(
                extent.Start >= free && extent.Length is >= 1 and <= PageExtent.MaxLength && extent.Length <= pages - extent.Start,
                "extent");
            Require(extent.Layer >= 0 && extent.Layer < counts.Layers, "layer of an extent");
            extents[i] = extent;
            isUsed[extent.Layer] = true;
            free = extent.Start + extent.Length;
        }

        Require(Array.TrueForAll(isUsed, static used => used), "list of layers");
        return extents;
    }

    private static PlatformDeviceState ReadDevice(ReadOnlySpan<byte> header, ReadOnlySpan<byte> consoleInput)
    {
        ulong monotonic = BinaryPrimitives.ReadUInt64LittleEndian(header[72..]);
        int initLevel = BinaryPrimitives.ReadInt32LittleEndian(header[84..]);
        uint flags = BinaryPrimitives.ReadUInt32LittleEndian(header[88..]);
        int exitCode = BinaryPrimitives.ReadInt32LittleEndian(header[92..]);
        bool hasExitCode = (flags & HasExitCode) != 0;
        Require(monotonic <= long.MaxValue, "monotonic clock");
        Require(initLevel is >= 0 and <= StopCode.AppInitLevel, "init level");
        Require((flags & ~AllDeviceFlags) == 0 && (hasExitCode || exitCode == 0), "state of the platform device");
        return new PlatformDeviceState(
            initLevel,
            (flags & IsShuttingDown) != 0,
            (flags & HasReachedMain) != 0,
            hasExitCode ? exitCode : null,
            consoleInput.ToArray(),
            monotonic);
    }

    private static void WriteDisk(Span<byte> bytes, DiskState disk)
    {
        BinaryPrimitives.WriteInt32LittleEndian(bytes, disk.Slot);
        BinaryPrimitives.WriteUInt32LittleEndian(bytes[4..], disk.IsReadOnly ? IsReadOnlyDisk : 0);
        BinaryPrimitives.WriteInt64LittleEndian(bytes[8..], disk.Size);
        disk.Device.Write(bytes[16..]);
    }

    private static DiskState[] ReadDisks(ref ReadOnlySpan<byte> rest, int count, long memorySize, MemoryGap gap)
    {
        DiskState[] disks = new DiskState[count];
        int free = 0;
        for (int i = 0; i < count; i++)
        {
            ReadOnlySpan<byte> bytes = Take(ref rest, DiskSize);
            int slot = BinaryPrimitives.ReadInt32LittleEndian(bytes);
            uint flags = BinaryPrimitives.ReadUInt32LittleEndian(bytes[4..]);
            long size = BinaryPrimitives.ReadInt64LittleEndian(bytes[8..]);
            Require(slot >= free && slot < MachineDisk.Slots && (flags & ~IsReadOnlyDisk) == 0, "slot of a disk");
            Require(size >= 0 && size % SectorSize == 0, "size of a disk");
            bool isReadOnly = flags == IsReadOnlyDisk;
            VirtioDeviceState? device = VirtioDeviceState.Read(bytes[16..]);
            Require(device is not null && VirtioBlock.CouldBe(device, isReadOnly) && IsSound(device, memorySize, gap), "state of a disk");
            disks[i] = new DiskState(slot, size, isReadOnly, device!);
            free = slot + 1;
        }

        return disks;
    }

    /// <summary>Whether the queue of a device is in a memory, when there is one.</summary>
    private static bool IsSound(VirtioDeviceState device, long memorySize, MemoryGap gap) =>
        device.Queues.All(queue => !queue.IsReady || Virtqueue.IsSound(memorySize, gap, queue.Settings));

    private static ReadOnlySpan<byte> Take(ref ReadOnlySpan<byte> rest, int length)
    {
        ReadOnlySpan<byte> taken = rest[..length];
        rest = rest[length..];
        return taken;
    }

    private static void Require(bool condition, string field)
    {
        if (!condition)
        {
            throw FileDamageException.Damaged($"has a value that cannot be: {field}");
        }
    }

    /// <summary>How many there are of everything that there can be several of.</summary>
    [StructLayout(LayoutKind.Auto)]
    private readonly record struct Counts(int Vcpus, int Ranges, int Layers, int Extents, int ConsoleBytes, int Disks, bool IsKernel)
    {
        internal int KernelBytes => IsKernel ? KernelState.Size + Vcpus * KernelRegisters.Size : 0;

        internal long FileLength =>
            HeaderSize
            + (long)Ranges * RangeSize
            + (long)Vcpus * VcpuSize
            + (long)Layers * LayerSize
            + (long)Extents * ExtentSize
            + (long)Disks * DiskSize
            + ConsoleBytes
            + KernelBytes
            + Digest.SizeInBytes;
    }
}
