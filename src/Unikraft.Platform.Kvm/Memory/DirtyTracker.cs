using Unikraft.Platform.Kvm.Interop;

namespace Unikraft.Platform.Kvm.Memory;

/// <summary>
/// Knows which pages of a guest have changed since its last snapshot: those in KVM's log, those the host wrote, and those that a snapshot
/// took which then failed.
/// </summary>
/// <remarks>Used by one snapshot at a time. Allocates nothing once it is made.</remarks>
internal sealed class DirtyTracker
{
    /// <summary>Pages protected in one call, which keeps vCPUs from faulting meanwhile. A multiple of 64.</summary>
    private const int ClearStep = 1 << 14;

    private readonly KvmVm _vm;
    private readonly GuestMemory _memory;
    private readonly PageBitmap _pending;
    private readonly PageBitmap _round;
    private readonly PageBitmap _taken;

    internal DirtyTracker(KvmVm vm, GuestMemory memory)
    {
        _vm = vm;
        _memory = memory;
        _pending = new PageBitmap(memory.Pages);
        _round = new PageBitmap(memory.Pages);
        _taken = new PageBitmap(memory.Pages);
    }

    /// <summary>Takes what has changed while the guest runs on, and begins to log anew.</summary>
    /// <returns>The number of pages.</returns>
    internal int TakeRound(LayerWriter writer, CancellationToken cancellationToken)
    {
        int pages = BeginRound();
        writer.Expect(pages);
        int next = 0;
        while (ContinueRound(writer, ref next, int.MaxValue, cancellationToken))
        {
        }

        return pages;
    }

    /// <summary>Collects what has changed and begins to log anew, for <see cref="ContinueRound"/> to copy it.</summary>
    /// <returns>The number of pages.</returns>
    internal int BeginRound()
    {
        ReadLog();

        // Noted before the log forgets them, whatever fails from here on.
        _taken.UnionWith(_round);

        // Cleared before the pages are read: a write that comes after the reading is in the log again.
        ClearLog();
        Collect();
        return _round.Count();
    }

    /// <summary>Copies a part of a round.</summary>
    /// <param name="writer">Where to.</param>
    /// <param name="next">Where the part begins, 0 at first, and where the next one does.</param>
    /// <param name="maxPages">The most pages to copy.</param>
    /// <param name="cancellationToken">Cancels; the pages count as changed if the snapshot is rolled back.</param>
    /// <returns>Whether there is more to copy.</returns>
    internal bool ContinueRound(LayerWriter writer, ref int next, int maxPages, CancellationToken cancellationToken)
    {
        // 4 MiB: a cancellation is heard within a few milliseconds.
        const int Step = 1 << 10;
        while (maxPages > 0)
        {
            cancellationToken.ThrowIfCancellationRequested();
            if (!_round.NextRun(next, out int start, out int length))
            {
                return false;
            }

            length = Math.Min(length, Math.Min(Step, maxPages));
            writer.Store(start, _memory.PageRun(start, length));
            next = start + length;
            maxPages -= length;
        }

        return true;
    }

    /// <summary>Counts what has changed since the last round, at the cost of reading the log.</summary>
    internal int CountResidue()
    {
        ReadLog();
        return _round.Count();
    }

    /// <summary>Takes the rest while the guest stands still. Nothing is protected again yet: that would take as long as the copying.</summary>
    internal void StageResidue(LayerWriter writer, StagingBuffer buffer)
    {
        ReadLog();
        Collect();
        writer.Stage(_memory, _round, buffer);
    }

    /// <summary>Stores the rest, when the guest runs again, and begins to log anew.</summary>
    internal void FlushResidue(LayerWriter writer)
    {
        // The log forgets what was written since the guest runs again, and the comparison finds it: exact, at no cost to the cut.
        ClearLog();
        writer.FlushStaged(_memory, _round, changed: _pending);
    }

    /// <summary>The snapshot that was taken is complete.</summary>
    internal void Commit() => _taken.Clear();

    /// <summary>The snapshot failed: the next one has to take its pages again.</summary>
    internal void Rollback()
    {
        _pending.UnionWith(_taken);
        _taken.Clear();
    }

    private void ReadLog()
    {
        foreach (MemorySlot slot in _memory.Slots)
        {
            _vm.GetDirtyLog(slot, _round);
        }
    }

    private void Collect()
    {
        _memory.WrittenByHost.MoveTo(_round);
        _pending.MoveTo(_round);

        // Noted before the copying, so that a failure in it loses nothing.
        _taken.UnionWith(_round);
    }

    private void ClearLog()
    {
        foreach (MemorySlot slot in _memory.Slots)
        {
            for (int page = 0; page < slot.Pages; page += ClearStep)
            {
                int pages = Math.Min(ClearStep, slot.Pages - page);
                if (_round.WordsOf(slot.FirstPage + page, pages).ContainsAnyExcept(0UL))
                {
                    _vm.ClearDirtyLog(slot, _round, page, pages);
                }
            }
        }
    }
}
