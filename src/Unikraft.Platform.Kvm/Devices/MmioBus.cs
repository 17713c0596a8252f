namespace Unikraft.Platform.Kvm.Devices;

/// <summary>Routes the accesses that leave the guest to the device at their address.</summary>
internal sealed class MmioBus
{
    private readonly List<Window> _windows = [];

    /// <summary>Attaches a device.</summary>
    /// <exception cref="ArgumentException">Another device is there.</exception>
    internal void Attach(ulong address, ulong length, IMmioDevice device)
    {
        if (_windows.Exists(window => address < window.Address + window.Length && window.Address < address + length))
        {
            throw new ArgumentException($"There is a device at 0x{address:x} already.", nameof(address));
        }

        _windows.Add(new Window(address, length, device));
    }

    /// <summary>Reads from a device; all ones where there is none.</summary>
    internal void Read(IMmioInitiator initiator, ulong address, Span<byte> data)
    {
        if (Find(address, data.Length) is { } window)
        {
            window.Device.Read(initiator, address - window.Address, data);
        }
        else
        {
            data.Fill(byte.MaxValue);
        }
    }

    /// <summary>Writes to a device; without effect where there is none.</summary>
    internal void Write(IMmioInitiator initiator, ulong address, ReadOnlySpan<byte> data)
    {
        if (Find(address, data.Length) is { } window)
        {
            window.Device.Write(initiator, address - window.Address, data);
        }
    }

    private Window? Find(ulong address, int length)
    {
        foreach (Window window in _windows)
        {
            // Unsigned: an address below the window is far above its length.
            if (address - window.Address < window.Length && (ulong)length <= window.Length - (address - window.Address))
            {
                return window;
            }
        }

        return null;
    }

    private sealed record Window(ulong Address, ulong Length, IMmioDevice Device);
}
