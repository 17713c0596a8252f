using Unikraft.Platform.Hypervisors;

namespace Unikraft.Platform.Volumes;

/// <summary>Passes everything on, and notes the failures of disks at their volumes.</summary>
internal sealed class VolumeMonitor(IMachineMonitor inner, VolumeCatalog catalog, InstanceVolumes volumes) : IMachineMonitor
{
    public void OnConsoleOutput(ReadOnlySpan<byte> output) => inner.OnConsoleOutput(output);

    public void OnMainReached() => inner.OnMainReached();

    public void OnTemplateRequested() => inner.OnTemplateRequested();

    public void OnForkRequested() => inner.OnForkRequested();

    public void OnDiskFailed(MachineDisk disk, Exception error)
    {
        catalog.OnDiskFailed(volumes, disk.Slot, error);
        inner.OnDiskFailed(disk, error);
    }
}
