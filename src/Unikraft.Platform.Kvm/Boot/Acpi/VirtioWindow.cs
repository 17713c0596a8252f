namespace Unikraft.Platform.Kvm.Boot.Acpi;

/// <summary>A virtio-mmio device, as a kernel has to know it.</summary>
/// <param name="Address">The guest physical address of its registers.</param>
/// <param name="Length">Their size in bytes.</param>
/// <param name="Interrupt">The number of its interrupt.</param>
internal sealed record VirtioWindow(uint Address, uint Length, uint Interrupt);
