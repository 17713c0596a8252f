using Unikraft.Platform.Kvm.Memory;

namespace Unikraft.Platform.Latency;

/// <summary>
/// The largest gap in a guest's time, which it keeps up to date in its memory: to be asked for it would be work of its own, for which it might have to wait.
/// </summary>
/// <param name="memory">The guest's memory.</param>
/// <param name="address">Where the guest has it: whether it has begun to look, the gap in cycles, and how often it has looked.</param>
/// <param name="tscKhz">Its cycles in a millisecond.</param>
internal sealed class GapWatch(GuestMemory memory, long address, double tscKhz)
{
    private const int GapOffset = 8;
    private const int SamplesOffset = 16;

    private long _samplesSoFar;

    /// <summary>Whether the guest has forgotten what was before.</summary>
    internal bool HasBegun => memory.Read<long>(address) != 0;

    private long Samples => memory.Read<long>(address + SamplesOffset);

    /// <summary>Notes how often the guest has looked up to now: it has to look again before it knows of a gap that it is in.</summary>
    internal void NoteSamples() => _samplesSoFar = Samples;

    /// <summary>Forgets the gaps that are over.</summary>
    internal void Forget() => memory.Write(address + GapOffset, 0L);

    /// <summary>The largest gap by now, in microseconds, one that the guest was in at the last <see cref="NoteSamples"/> included.</summary>
    internal double TakeGap()
    {
        SpinWait spin = default;
        while (Samples - _samplesSoFar < 2)
        {
            spin.SpinOnce();
        }

        return memory.Read<long>(address + GapOffset) * MeasureContext.NanosecondsPerMicrosecond / tscKhz;
    }
}
