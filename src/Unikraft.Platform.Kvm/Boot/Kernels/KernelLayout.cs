using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Kvm.Devices.Virtio;

namespace Unikraft.Platform.Kvm.Boot.Kernels;

/// <summary>Where the platform puts what a kernel is told. All of it lies below 1 MiB, in memory that the kernel takes over when it has read it.</summary>
internal static class KernelLayout
{
    internal const long DescriptorTable = 0x1000;

    /// <summary>The zero page, the start info or the multiboot information.</summary>
    internal const long BootInformation = 0x7000;

    /// <summary>The lists that the boot information points to.</summary>
    internal const long BootLists = 0x8000;

    /// <summary>Page tables for a kernel that is entered in long mode: one root, one directory of directories, four directories.</summary>
    internal const long PageTables = 0x9000;

    internal const long CommandLine = 0x2_0000;
    internal const int CommandLineSize = 0x1_0000;

    /// <summary>ACPI tables: in the area where a kernel looks for their root, and reserved in the memory map.</summary>
    internal const long AcpiTables = 0xE_0000;

    /// <summary>The generation id: in the reserved area behind the tables.</summary>
    internal const long GenerationId = 0xF_F000;
    internal const int GenerationIdSize = 16;

    /// <summary>The registers of the disk in slot 0, in the gap; those of the others follow.</summary>
    internal const uint DisksAddress = 0xD000_0000;

    /// <summary>The interrupt of the disk in slot 0; those of the others follow.</summary>
    internal const uint FirstDiskInterrupt = 10;

    /// <summary>The registers of the source of random bytes, behind those of all disks, and its interrupt, behind theirs.</summary>
    internal const uint EntropyAddress = DisksAddress + MachineDisk.Slots * (uint)VirtioDevice.WindowLength;
    internal const uint EntropyInterrupt = FirstDiskInterrupt + MachineDisk.Slots;

    /// <summary>Where a processor begins after a reset, and where a kernel jumps to in real mode when it is out of other ways to reset.</summary>
    internal const long ResetVector = 0xF_FFF0;

    /// <summary>mov al, 0xFE; out 0x64, al; hlt; jmp to the hlt: asks the keyboard controller for a reset.</summary>
    internal static ReadOnlySpan<byte> ResetCode => [0xB0, 0xFE, 0xE6, 0x64, 0xF4, 0xEB, 0xFD];
}
