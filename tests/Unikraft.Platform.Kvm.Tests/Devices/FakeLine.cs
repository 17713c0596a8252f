using Unikraft.Platform.Kvm.Devices;

namespace Unikraft.Platform.Kvm.Tests.Devices;

/// <summary>An interrupt line that counts its edges.</summary>
internal sealed class FakeLine : IInterruptLine
{
    internal bool IsHigh { get; private set; }

    internal int RisingEdges { get; private set; }

    public void Set(bool isHigh)
    {
        RisingEdges += isHigh && !IsHigh ? 1 : 0;
        IsHigh = isHigh;
    }
}
