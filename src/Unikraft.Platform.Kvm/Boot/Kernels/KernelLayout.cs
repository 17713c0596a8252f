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
}
