namespace Unikraft.Platform.Hypervisors;

/// <summary>Why the platform does not do what a guest has asked for. The values are Linux error numbers, as the guest sees them.</summary>
public enum GuestRequestRefusal
{
    /// <summary><c>EAGAIN</c>: the platform could not, for a reason that may pass.</summary>
    TryAgain = 11,

    /// <summary><c>EBUSY</c>: a snapshot of the machine is being taken already.</summary>
    Busy = 16,
}
