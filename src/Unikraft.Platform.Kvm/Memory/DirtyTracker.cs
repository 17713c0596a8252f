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
    internal int TakeRound(LayerWriter writer)
    {
        _round.Clear();
        _vm.GetDirtyLog(_round.Words);

        // Noted before the log forgets them, whatever fails from here on.
        _taken.UnionWith(_round);

        // Cleared before the pages are read: a write that comes after the reading is in the log again.
        ClearLog();
        Collect();
        writer.Copy(_memory, _round);
        return _round.Count();
    }

    /// <summary>Counts what has changed since the last round, at the cost of reading the log.</summary>
    internal int CountResidue()
    {
        _round.Clear();
        _vm.GetDirtyLog(_round.Words);
        return _round.Count();
    }

    /// <summary>
    /// Takes the rest while the guest stands still. Nothing is protected again: these pages count as changed next time, which costs nothing
    /// now.
    /// </summary>
    internal void StageResidue(LayerWriter writer, StagingBuffer buffer)
    {
        _round.Clear();
        _vm.GetDirtyLog(_round.Words);
        Collect();
        writer.Stage(_memory, _round, buffer);
    }

    /// <summary>Stores the rest, when the guest runs again.</summary>
    internal void FlushResidue(LayerWriter writer) => writer.FlushStaged(_round);

    /// <summary>The snapshot that was taken is complete.</summary>
    internal void Commit() => _taken.Clear();

    /// <summary>The snapshot failed: the next one has to take its pages again.</summary>
    internal void Rollback()
    {
        _pending.UnionWith(_taken);
        _taken.Clear();
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
        Span<ulong> words = _round.Words;
        for (int page = 0; page < _round.Pages; page += ClearStep)
        {
            int pages = Math.Min(ClearStep, _round.Pages - page);
            Span<ulong> part = words.Slice(page / PageBitmap.BitsPerWord, (pages + PageBitmap.BitsPerWord - 1) / PageBitmap.BitsPerWord);
            if (part.ContainsAnyExcept(0UL))
            {
                _vm.ClearDirtyLog(part, page, pages);
            }
        }
    }
}
