using System.Globalization;

namespace Unikraft.Platform.Volumes;

/// <summary>The one place where the range of a request is checked against the device.</summary>
internal static class BlockRange
{
    /// <exception cref="BlockDeviceException">The range is not all in the layer.</exception>
    internal static void ThrowIfOutside(BlockLayer layer, long offset, long length)
    {
        long size = layer.Size;
        if (offset < 0 || length < 0 || offset > size - length)
        {
            ThrowIfOutside(layer.Path, size, offset, length);
        }
    }

    /// <exception cref="BlockDeviceException">The range is not all on the device.</exception>
    internal static void ThrowIfOutside(string device, long size, long offset, long length)
    {
        if (offset < 0 || length < 0 || offset > size - length)
        {
            throw new BlockDeviceException(
                BlockDeviceError.OutOfRange,
                device,
                string.Create(CultureInfo.InvariantCulture, $"'{device}' has {size} bytes: {length} at {offset} are not all among them."));
        }
    }

    /// <exception cref="BlockDeviceException">Always.</exception>
    internal static void ThrowReadOnly(string device) =>
        throw new BlockDeviceException(BlockDeviceError.ReadOnly, device, $"'{device}' is read-only.");
}
