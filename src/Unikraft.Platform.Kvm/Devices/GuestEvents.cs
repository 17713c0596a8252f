namespace Unikraft.Platform.Kvm.Devices;

/// <summary>The event bits of the guest ABI.</summary>
internal static class GuestEvents
{
    internal const uint StopRequested = 1u << 0;
    internal const uint ConsoleInput = 1u << 1;

    /// <summary>A disk has completed a request and was asked to say so.</summary>
    internal const uint Disk = 1u << 2;

    internal const uint Wake = 1u << 31;
}
