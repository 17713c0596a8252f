using Unikraft.Platform.Kvm.Devices;

namespace Unikraft.Platform.Kvm.Tests.Testing;

internal static class DeviceSaving
{
    /// <summary>The state of the device, as a snapshot takes it.</summary>
    internal static PlatformDeviceState Save(this PlatformDevice device)
    {
        using PlatformDeviceCut cut = new();
        device.Save(cut);
        return cut.ToState();
    }

    /// <summary>The state of the port, as a snapshot takes it.</summary>
    internal static SerialPortState Save(this SerialPort port)
    {
        SerialPortCut cut = new();
        port.Save(cut);
        return cut.ToState();
    }

    /// <summary>What waits, as a snapshot takes it.</summary>
    internal static byte[] Save(this ConsoleInput input)
    {
        byte[] waiting = new byte[ConsoleInput.Capacity];
        return waiting[..input.Peek(waiting)];
    }
}
