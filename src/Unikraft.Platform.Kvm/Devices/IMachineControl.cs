using Unikraft.Platform.Hypervisors;

namespace Unikraft.Platform.Kvm.Devices;

/// <summary>What a device can do to the machine it is in.</summary>
internal interface IMachineControl
{
    /// <summary>Ends the machine. The first call decides how.</summary>
    void End(MachineExit exit);

    /// <summary>Lets a vCPU sleep until an event of the mask is pending or the clock reaches the deadline, and then finishes its call.</summary>
    void BeginWait(int vcpu, ulong deadline, uint mask);

    /// <summary>Lets a vCPU sleep until the platform has answered what the guest asks of it.</summary>
    /// <param name="vcpu">The vCPU.</param>
    /// <param name="call">What it asks for.</param>
    /// <param name="address">Where the guest wants a part of the answer.</param>
    /// <returns>False when an answer is owed to another vCPU.</returns>
    bool BeginRequest(int vcpu, GuestCall call, ulong address);

    /// <summary>Makes the wake event pending at a vCPU.</summary>
    void Wake(int vcpu);

    /// <summary>Makes events pending at all vCPUs.</summary>
    void Raise(uint events);

    /// <summary>Makes events no longer pending.</summary>
    void Lower(uint events);

    /// <summary>Makes events pending or not by what is so at this moment, in one order with all other changes.</summary>
    /// <param name="events">The events.</param>
    /// <param name="isPending">Called once, and must neither block nor call back.</param>
    void Follow(uint events, Func<bool> isPending);
}
