using System.Globalization;
using System.Text;
using Unikraft.Platform.Kvm.Memory;

namespace Unikraft.Platform.Kvm.Boot.Kernels;

/// <summary>Puts a kernel into memory and tells it about its machine, by the protocol that it is made for.</summary>
internal static class KernelLoader
{
    private const ulong PageIsPresent = 1 << 0;
    private const ulong PageIsWritable = 1 << 1;
    private const ulong PageIsLarge = 1 << 7;
    private const int EntriesPerTable = 512;
    private const int LargePageShift = 21;
    private const int MappedGibibytes = 4;

    // The selectors 0x10 and 0x18 are those that the Linux protocol asks for; the others do not care.
    private const ulong Code64 = 0x00AF_9B00_0000_FFFF;
    private const ulong Code32 = 0x00CF_9B00_0000_FFFF;
    private const ulong Data = 0x00CF_9300_0000_FFFF;

    /// <summary>Loads a kernel into memory that is still all zero.</summary>
    /// <param name="memory">The memory of the guest.</param>
    /// <param name="boot">What to boot.</param>
    /// <param name="rootPointer">The address of the root pointer of the ACPI tables; 0 when there are none.</param>
    /// <exception cref="ImageException">Kernel and initrd do not fit into the memory.</exception>
    /// <exception cref="InvalidRequestException">The command line cannot be passed on.</exception>
    internal static KernelEntry Load(GuestMemory memory, KernelBoot boot, long rootPointer)
    {
        KernelMemoryMap map = new(memory.Size);
        byte[] commandLine = boot.EncodeCommandLine();
        long initrd = PlaceInitrd(boot, map);
        foreach (KernelSegment segment in boot.Image.Segments)
        {
            memory.Write(segment.Address, segment.Content.Span);
        }

        memory.Write(initrd, boot.Initrd.Span);
        memory.Write(KernelLayout.CommandLine, commandLine);
        WriteDescriptorTable(memory, boot.Image.Protocol);
        ulong entryPoint = (ulong)boot.Image.EntryPoint;
        const ulong Information = KernelLayout.BootInformation;
        switch (boot.Image.Protocol)
        {
            case BootProtocol.Linux64:
                WriteZeroPage(memory, boot, map, initrd, rootPointer);
                WritePageTables(memory);
                return new KernelEntry(IsLongMode: true, entryPoint, Rax: 0, Rbx: 0, Rsi: Information);
            case BootProtocol.Pvh:
                WriteStartInfo(memory, boot, map, initrd, rootPointer);
                return new KernelEntry(IsLongMode: false, entryPoint, Rax: 0, Rbx: Information, Rsi: 0);
            default:
                const ulong LoaderMagic = 0x2BAD_B002;
                WriteMultibootInformation(memory, boot, map, initrd);
                return new KernelEntry(IsLongMode: false, entryPoint, LoaderMagic, Information, Rsi: 0);
        }
    }

    /// <summary>As high as kernel and memory allow, so that the kernel has room to unpack itself.</summary>
    private static long PlaceInitrd(KernelBoot boot, KernelMemoryMap map)
    {
        KernelImage image = boot.Image;
        long end = Math.Min(map.LowEnd, image.MaxInitrdAddress + 1);
        long address = (end - boot.Initrd.Length) & -PageSize.Bytes;
        if (image.End <= map.LowEnd && (boot.Initrd.IsEmpty || address >= image.End))
        {
            return boot.Initrd.IsEmpty ? 0 : address;
        }

        long needed = PageSize.RoundUp(image.End) + PageSize.RoundUp(boot.Initrd.Length);
        throw new ImageException(
            ImageError.MemoryTooSmall,
            image.Name,
            string.Create(
                CultureInfo.InvariantCulture,
                $"The kernel '{image.Name}' needs {(needed + (1 << 20) - 1) >> 20} MiB of memory for itself and its initrd below 0x{end:x}, but the instance has {map.Size >> 20}."));
    }

    private static void WriteDescriptorTable(GuestMemory memory, BootProtocol protocol)
    {
        memory.Write(KernelLayout.DescriptorTable + 0x10, protocol == BootProtocol.Linux64 ? Code64 : Code32);
        memory.Write(KernelLayout.DescriptorTable + 0x18, Data);
    }

    /// <summary>Maps the first 4 GiB to themselves.</summary>
    private static void WritePageTables(GuestMemory memory)
    {
        const long Directories = KernelLayout.PageTables + PageSize.Bytes;
        memory.Write(KernelLayout.PageTables, (ulong)Directories | PageIsPresent | PageIsWritable);
        for (int i = 0; i < MappedGibibytes; i++)
        {
            long directory = Directories + (i + 1) * (long)PageSize.Bytes;
            memory.Write(Directories + i * sizeof(ulong), (ulong)directory | PageIsPresent | PageIsWritable);
            for (int j = 0; j < EntriesPerTable; j++)
            {
                ulong page = (ulong)(i * EntriesPerTable + j) << LargePageShift;
                memory.Write(directory + j * sizeof(ulong), page | PageIsPresent | PageIsWritable | PageIsLarge);
            }
        }
    }

    /// <remarks>Offsets: Linux, struct boot_params.</remarks>
    private static void WriteZeroPage(GuestMemory memory, KernelBoot boot, KernelMemoryMap map, long initrd, long rootPointer)
    {
        const long Page = KernelLayout.BootInformation;
        const long RootPointer = Page + 0x070;
        const long RegionCount = Page + 0x1E8;
        const long BootFlag = Page + 0x1FE;
        const long Signature = Page + 0x202;
        const long Loader = Page + 0x210;
        const long InitrdAddress = Page + 0x218;
        const long InitrdSize = Page + 0x21C;
        const long CommandLine = Page + 0x228;
        const long Alignment = Page + 0x230;
        const long RegionTable = Page + 0x2D0;
        const int RegionSize = 20;
        const byte UndefinedLoader = 0xFF;

        memory.Write(Page + LinuxBzImage.HeaderOffset, boot.Image.SetupHeader.Span);
        if (boot.Image.SetupHeader.IsEmpty)
        {
            // An ELF file has none. These are the fields that such a kernel reads or checks.
            memory.Write(BootFlag, (ushort)0xAA55);
            memory.Write(Signature, "HdrS"u8);
            memory.Write(Alignment, 0x0100_0000);
        }

        memory.Write(Loader, UndefinedLoader);
        memory.Write(CommandLine, (uint)KernelLayout.CommandLine);
        memory.Write(InitrdAddress, (uint)initrd);
        memory.Write(InitrdSize, (uint)boot.Initrd.Length);
        memory.Write(RootPointer, rootPointer);
        memory.Write(RegionCount, (byte)map.Regions.Count);
        for (int i = 0; i < map.Regions.Count; i++)
        {
            WriteRegion(memory, RegionTable + i * RegionSize, map.Regions[i]);
        }
    }

    /// <remarks>Offsets: x86/HVM direct boot ABI, struct hvm_start_info, version 1.</remarks>
    private static void WriteStartInfo(GuestMemory memory, KernelBoot boot, KernelMemoryMap map, long initrd, long rootPointer)
    {
        const long Info = KernelLayout.BootInformation;
        const long Module = KernelLayout.BootLists;
        const long Regions = KernelLayout.BootLists + 0x100;
        const int RegionSize = 24;
        const uint Magic = 0x336E_C578;
        const uint Version = 1;

        memory.Write(Info, Magic);
        memory.Write(Info + 4, Version);
        if (!boot.Initrd.IsEmpty)
        {
            memory.Write(Info + 12, 1u);
            memory.Write(Info + 16, Module);
            memory.Write(Module, initrd);
            memory.Write(Module + 8, (long)boot.Initrd.Length);
        }

        memory.Write(Info + 24, KernelLayout.CommandLine);
        memory.Write(Info + 32, rootPointer);
        memory.Write(Info + 40, Regions);
        memory.Write(Info + 48, map.Regions.Count);
        for (int i = 0; i < map.Regions.Count; i++)
        {
            WriteRegion(memory, Regions + i * RegionSize, map.Regions[i]);
        }
    }

    /// <remarks>Offsets: Multiboot Specification 0.6.96, "Boot information format".</remarks>
    private static void WriteMultibootInformation(GuestMemory memory, KernelBoot boot, KernelMemoryMap map, long initrd)
    {
        const long Info = KernelLayout.BootInformation;
        const long Module = KernelLayout.BootLists;
        const long LoaderName = KernelLayout.BootLists + 0x80;
        const long Regions = KernelLayout.BootLists + 0x100;
        const int RegionSize = 24;
        const uint HasMemory = 1 << 0;
        const uint HasCommandLine = 1 << 2;
        const uint HasModules = 1 << 3;
        const uint HasRegions = 1 << 6;
        const uint HasLoaderName = 1 << 9;

        memory.Write(Info, HasMemory | HasCommandLine | HasModules | HasRegions | HasLoaderName);
        memory.Write(Info + 4, (uint)(KernelMemoryMap.BaseMemoryEnd >> 10));
        memory.Write(Info + 8, (uint)((map.LowEnd - KernelImage.LowestAddress) >> 10));
        memory.Write(Info + 16, (uint)KernelLayout.CommandLine);
        if (!boot.Initrd.IsEmpty)
        {
            memory.Write(Info + 20, 1u);
            memory.Write(Info + 24, (uint)Module);
            memory.Write(Module, (uint)initrd);
            memory.Write(Module + 4, (uint)(initrd + boot.Initrd.Length));
        }

        memory.Write(Info + 44, (uint)(map.Regions.Count * RegionSize));
        memory.Write(Info + 48, (uint)Regions);
        memory.Write(Info + 64, (uint)LoaderName);
        memory.Write(LoaderName, Encoding.ASCII.GetBytes("Unikraft.Platform\0"));
        for (int i = 0; i < map.Regions.Count; i++)
        {
            // The size of an entry does not count itself.
            memory.Write(Regions + i * RegionSize, (uint)(RegionSize - sizeof(uint)));
            WriteRegion(memory, Regions + i * RegionSize + sizeof(uint), map.Regions[i]);
        }
    }

    private static void WriteRegion(GuestMemory memory, long address, KernelMemoryMap.Region region)
    {
        memory.Write(address, region.Address);
        memory.Write(address + 8, region.Length);
        memory.Write(address + 16, (uint)region.Kind);
    }
}
