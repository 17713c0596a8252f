using Unikraft.Platform.Kvm.Snapshots;

namespace Unikraft.Platform.Kvm.Tests.Testing;

/// <summary>What the threads of vCPUs allocate from one cut to the next.</summary>
internal sealed class CutAllocations
{
    /// <summary>The first cuts of a thread may bring what is made once.</summary>
    private const int First = 3;

    private readonly Dictionary<int, List<long>> _allocated = [];
    private int _thread;
    private long _now;

    /// <summary>For each capture.</summary>
    internal CaptureHooks Hooks => new(
        BeforeCut: () =>
        {
            // Noted outside of the cut, for notes are allocated.
            Note();
            return ValueTask.CompletedTask;
        },
        InCut: () => (_thread, _now) = (Environment.CurrentManagedThreadId, GC.GetAllocatedBytesForCurrentThread()));

    /// <summary>Whichever vCPU stops last makes the cut, so each has figures of its own.</summary>
    internal void AssertNone()
    {
        Note();
        List<long>[] late = [.. _allocated.Values.Where(static values => values.Count > First).Select(static values => values[First..])];
        int cuts = late.Sum(static values => values.Count);
        Assert.InRange(cuts, 10, int.MaxValue);

        // What is made once, for a lock that two vCPUs wanted at the same time for instance, can be made at any cut; what a cut makes, each makes.
        Assert.InRange(late.Sum(static values => values.Distinct().Count() - 1), 0, cuts / 4);
    }

    private void Note()
    {
        if (_thread != 0)
        {
            if (!_allocated.TryGetValue(_thread, out List<long>? values))
            {
                _allocated[_thread] = values = [];
            }

            values.Add(_now);
            _thread = 0;
        }
    }
}
