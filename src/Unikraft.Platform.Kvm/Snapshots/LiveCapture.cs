using Microsoft.Extensions.Logging;
using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Kvm.Boot;
using Unikraft.Platform.Kvm.Machines;
using Unikraft.Platform.Kvm.Memory;
using Unikraft.Platform.Kvm.Vcpus;

namespace Unikraft.Platform.Kvm.Snapshots;

/// <summary>
/// Takes snapshots of a machine that runs: rounds of copying while the guest goes on, then a cut for what is left. How long the guest stands
/// still depends on what it wrote during the last round, not on how much memory it has.
/// </summary>
internal sealed class LiveCapture : IDisposable
{
    /// <summary>Chains are folded when loading would copy more than these pages, and this share of the memory: 2.5 us each.</summary>
    private const int MinScattered = 256;
    private const int ScatteredShare = 64;
    private const int UrgentShare = 4;

    /// <summary>256 MiB: more would take longer to provide than it saves.</summary>
    private const int MaxStaged = 1 << 16;

    private static readonly TimeSpan FoldingDelay = TimeSpan.FromMilliseconds(100);

    private readonly RunControl _control;
    private readonly IGuestState _guest;
    private readonly KvmDisks _disks;
    private readonly FlatGuestLayout _layout;
    private readonly GuestMemory _memory;
    private readonly TimeProvider _timeProvider;
    private readonly Lazy<DirtyTracker> _tracker;
    private readonly StagingPool _stagingPool;
    private readonly SheetPool _sheets;
    private readonly CutForecast _forecast;
    private readonly BackgroundWork _background;
    private readonly ILogger _logger;
    private readonly SemaphoreSlim _busy = new(1, 1);
    private readonly SharedPageMap _base;
    private readonly Lock _foldLock = new();
    private readonly InterruptibleDelay _foldingDelay;

    /// <summary>The last snapshot that was worth folding; <see langword="null"/> when nothing is being folded. Guarded by the lock.</summary>
    private KvmSnapshot? _newest;

    /// <param name="parts">The machine.</param>
    /// <param name="guest">What else there is to take.</param>
    /// <param name="tracker">What has changed since <paramref name="baseMap"/>; not made before it is needed.</param>
    /// <param name="stagingPool">Where the buffer for the cut comes from.</param>
    /// <param name="sheets">Where small layers are stored.</param>
    /// <param name="forecast">How long cuts take.</param>
    /// <param name="background">Where chains are folded.</param>
    /// <param name="logger">Where to log.</param>
    /// <param name="disks">The machine's disks.</param>
    /// <param name="memory">The guest's memory.</param>
    /// <param name="layout">Its layout.</param>
    /// <param name="baseMap">What the memory was made of, which is taken over; <see langword="null"/> for zeroes.</param>
    internal LiveCapture(
        VcpuEnvironment parts,
        IGuestState guest,
        Lazy<DirtyTracker> tracker,
        StagingPool stagingPool,
        SheetPool sheets,
        CutForecast forecast,
        BackgroundWork background,
        ILogger logger,
        KvmDisks disks,
        GuestMemory memory,
        FlatGuestLayout layout,
        PageMap? baseMap)
    {
        _stagingPool = stagingPool;
        _sheets = sheets;
        _forecast = forecast;
        _background = background;
        _logger = logger;
        _disks = disks;
        _control = parts.Control;
        _guest = guest;
        _timeProvider = parts.TimeProvider;
        _foldingDelay = new InterruptibleDelay(parts.TimeProvider);
        _tracker = tracker;
        _memory = memory;
        _layout = layout;
        _base = new SharedPageMap(baseMap);
    }

    /// <summary>What snapshots have left behind to be done in the background.</summary>
    internal Task Background => _background.WhenDone();

    private int FoldingLimit => Math.Max(MinScattered, _memory.Pages / ScatteredShare);

    /// <summary>Takes a snapshot.</summary>
    /// <param name="options">How to take it.</param>
    /// <param name="hooks">Looks into it; <see langword="null"/> for nobody.</param>
    /// <param name="cancellationToken">Cancels, up to the cut.</param>
    /// <exception cref="InvalidOperationException">Another one is being taken.</exception>
    internal async ValueTask<KvmSnapshot> CaptureAsync(CaptureOptions options, CaptureHooks? hooks, CancellationToken cancellationToken)
    {
        if (!await _busy.WaitAsync(TimeSpan.Zero, CancellationToken.None).ConfigureAwait(false))
        {
            throw new InvalidOperationException("Another snapshot of the machine is being taken.");
        }

        try
        {
            // Copying memory is work for a thread of its own kind, not for the caller's.
            return await Task.Run(() => CaptureCoreAsync(options, hooks, cancellationToken), cancellationToken).ConfigureAwait(false);
        }
        finally
        {
            _busy.Release();
        }
    }

    /// <summary>Waits for a snapshot under way, and refuses further ones.</summary>
    internal async Task CloseAsync()
    {
        await _busy.WaitAsync().ConfigureAwait(false);
    }

    public void Dispose()
    {
        _base.Dispose();
        _busy.Dispose();
    }

    /// <summary>Brings together what lies scattered, while everybody goes on: loading would have to copy it page by page.</summary>
    private void BeginFolding(KvmSnapshot snapshot)
    {
        using PageMap map = snapshot.ShareMemory();
        FoldPart.Find(map, _memory.Pages, out int gain);
        if (gain <= FoldingLimit)
        {
            return;
        }

        lock (_foldLock)
        {
            bool isFolding = _newest is not null;
            bool isUrgent = gain > UrgentShare * FoldingLimit;
            _newest = snapshot;
            if (!isFolding)
            {
                _foldingDelay.Begin();

                // A branch is restored right after its snapshot, and would wait for memory and processor; unless it waits for the copying anyway.
                _ = _background.Begin(token => FoldAsync(isUrgent ? TimeSpan.Zero : FoldingDelay, token));
            }
            else if (isUrgent)
            {
                _foldingDelay.End();
            }
        }
    }

    private async Task FoldAsync(TimeSpan delay, CancellationToken cancellationToken)
    {
        try
        {
            await _foldingDelay.WaitAsync(delay, cancellationToken).ConfigureAwait(false);
            while (FoldOnce(cancellationToken))
            {
                // A guest that is branched all the time always leaves something to fold: others get a turn.
                await Task.Yield();
            }
        }
        catch (OperationCanceledException)
        {
            // The backend is being closed, and its snapshots with it.
        }
        catch (Exception error)
        {
            // Loading is slower then, and nothing else.
            Log.FoldingFailed(_logger, error);
            lock (_foldLock)
            {
                _newest = null;
            }
        }
    }

    /// <returns>False when nothing is left that is worth it.</returns>
    private bool FoldOnce(CancellationToken cancellationToken)
    {
        cancellationToken.ThrowIfCancellationRequested();
        KvmSnapshot newest;
        lock (_foldLock)
        {
            newest = _newest!;
        }

        // What the machine continues on, and what it has left behind when it is gone.
        using PageMap? map = _base.TryShare() ?? newest.TryShareMemory();
        int gain = 0;
        FoldPart part = map is null ? default : FoldPart.Find(map, _memory.Pages, out gain);
        if (map is null || gain <= FoldingLimit)
        {
            lock (_foldLock)
            {
                if (_newest == newest)
                {
                    _newest = null;
                    return false;
                }

                return true;
            }
        }

        using PageMap folded = map.Fold(_memory.Pages, part.From, part.To);
        using PageMap rebased = map.Rebase(map, folded, part.From, part.To);
        newest.Adopt(rebased);
        _base.Rebase(map, folded, part.From, part.To);
        return true;
    }

    private async Task<KvmSnapshot> CaptureCoreAsync(CaptureOptions options, CaptureHooks? hooks, CancellationToken cancellationToken)
    {
        DirtyTracker tracker = _tracker.Value;
        using LayerWriter writer = new(_memory.Pages, _sheets);
        StagingBuffer? staging = null;
        DiskCapture? holding = null;
        try
        {
            PreCopy preCopy = new(_control, tracker, writer, _timeProvider);
            await preCopy
                .RunAsync(options.PauseBudget, _forecast.AffordablePages(options.PauseBudget), hooks, cancellationToken)
                .ConfigureAwait(false);
            if (hooks?.BeforeCut is { } beforeCut)
            {
                await beforeCut().ConfigureAwait(false);
            }

            cancellationToken.ThrowIfCancellationRequested();
            VcpuState[] states = new VcpuState[_layout.Vcpus];
            for (int i = 0; i < states.Length; i++)
            {
                states[i] = _guest.NewVcpuState(i);
            }

            // From here on the guest waits for its disks, and before the room for the rest is measured: requests write to memory too.
            DiskCapture disks = new(_disks, options.Disks);
            await disks.HoldAsync(cancellationToken).ConfigureAwait(false);
            holding = disks;

            // Twice the last round is room enough for a guest that writes as fast as before, twice what is there for one that became faster.
            staging = _stagingPool.Rent(Math.Min(MaxStaged, 2 * Math.Max(preCopy.LastRound, tracker.CountResidue())));
            StagingBuffer buffer = staging;
            using IGuestCut devices = _guest.NewCut(states);
            TimeSpan copying = default;
            Cut cut = new(states, () =>
            {
                long start = _timeProvider.GetTimestamp();
                tracker.StageResidue(writer, buffer);
                copying = _timeProvider.GetElapsedTime(start);
                devices.Take();
                disks.Cut();
                hooks?.InCut?.Invoke();
            });
            _control.Request(cut);
            await cut.WaitAsync().ConfigureAwait(false);
            holding = null;
            disks.Release();
            tracker.FlushResidue(writer);

            TimeSpan pause = _timeProvider.GetElapsedTime(cut.RequestedAt, cut.WaitUntilResumed());
            _forecast.Observe(writer.Staged, copying, pause);
            if (options.PauseBudget != Timeout.InfiniteTimeSpan && pause > options.PauseBudget)
            {
                Log.PauseBudgetExceeded(_logger, pause, options.PauseBudget);
            }

            KvmSnapshot snapshot = new(
                _base.Overlay(writer),
                _layout,
                states,
                devices.ToDevice(),
                pause > preCopy.LongestHold ? pause : preCopy.LongestHold,
                preCopy.Held,
                disks.ToStates())
            {
                Kernel = devices.ToKernel(),
            };
            tracker.Commit();
            BeginFolding(snapshot);
            return snapshot;
        }
        catch
        {
            tracker.Rollback();
            throw;
        }
        finally
        {
            holding?.Release();
            if (staging is not null)
            {
                _stagingPool.Return(staging);
            }
        }
    }
}
