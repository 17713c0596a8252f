using Microsoft.Extensions.Logging;
using Unikraft.Platform.Kvm.Snapshots;

namespace Unikraft.Platform.Kvm.Memory;

/// <summary>Keeps a few sheets ready for the next layers, and makes new ones in the background.</summary>
/// <param name="background">Where.</param>
/// <param name="timeProvider">The clock.</param>
/// <param name="logger">Where to log.</param>
/// <param name="delay">How long to leave the processors to whoever took a sheet.</param>
internal sealed class SheetPool(BackgroundWork background, TimeProvider timeProvider, ILogger logger, TimeSpan delay) : IDisposable
{
    private const int Ready = 2;
    private const int MinPages = 256;

    /// <summary>16 MiB: larger sheets are made when they are asked for.</summary>
    private const int MaxReadyPages = 4096;

    private readonly Lock _lock = new();
    private readonly List<LayerSheet> _ready = [];
    private Task _refilling = Task.CompletedTask;
    private int _readyPages = MinPages;
    private bool _disposed;

    /// <summary>Completes when the pool has what it should have.</summary>
    internal Task Refilled
    {
        get
        {
            lock (_lock)
            {
                return _refilling;
            }
        }
    }

    /// <summary>Takes a sheet of at least a number of pages.</summary>
    /// <returns><see langword="null"/> when mappings are short.</returns>
    internal LayerSheet? Rent(int pages)
    {
        lock (_lock)
        {
            // As large as the last that was asked for: who takes one snapshot of a guest often takes another.
            _readyPages = Math.Clamp(pages, MinPages, MaxReadyPages);
            int index = _ready.FindIndex(sheet => sheet.Capacity >= pages);
            LayerSheet? sheet = index < 0 ? null : _ready[index];
            if (sheet is not null)
            {
                _ready.RemoveAt(index);
            }

            if (_refilling.IsCompleted && !_disposed)
            {
                _refilling = background.Begin(RefillAsync);
            }

            if (sheet is not null)
            {
                return sheet;
            }
        }

        return LayerSheet.TryMake(pages);
    }

    /// <summary>Gives back what a layer does not use of its sheet, later.</summary>
    /// <param name="layer">The layer.</param>
    /// <param name="sheet">Its sheet.</param>
    /// <param name="used">The pages of the sheet that it uses.</param>
    internal void TrimLater(MemoryLayer layer, LayerSheet sheet, int used)
    {
        layer.AddReference();
        _ = background.Begin(token => TrimAsync(layer, sheet, used, token));
    }

    public void Dispose()
    {
        lock (_lock)
        {
            _disposed = true;
            _ready.ForEach(static sheet => sheet.Dispose());
            _ready.Clear();
        }
    }

    private async Task TrimAsync(MemoryLayer layer, LayerSheet sheet, int used, CancellationToken cancellationToken)
    {
        try
        {
            await Task.Delay(delay, timeProvider, cancellationToken).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
            sheet.Trim(used);
        }
        catch (HypervisorException error)
        {
            // The layer takes more room than it has to, and nothing else.
            Log.SheetFailed(logger, error);
        }
        finally
        {
            layer.Release();
        }
    }

    private async Task RefillAsync(CancellationToken cancellationToken)
    {
        try
        {
            await Task.Delay(delay, timeProvider, cancellationToken).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
            while (!cancellationToken.IsCancellationRequested && NextSize() is int pages && LayerSheet.TryMake(pages) is { } sheet)
            {
                Add(sheet);
            }
        }
        catch (HypervisorException error)
        {
            // The next snapshot makes its own, and reports what is wrong if it still is.
            Log.SheetFailed(logger, error);
        }
    }

    /// <summary>The size of the sheet that the pool lacks. Those that are too small by now make room for it.</summary>
    private int? NextSize()
    {
        List<LayerSheet> small;
        int? next;
        lock (_lock)
        {
            small = _ready.FindAll(sheet => sheet.Capacity < _readyPages);
            _ready.RemoveAll(small.Contains);
            next = _ready.Count < Ready && !_disposed ? _readyPages : null;
        }

        small.ForEach(static sheet => sheet.Dispose());
        return next;
    }

    private void Add(LayerSheet sheet)
    {
        lock (_lock)
        {
            if (!_disposed)
            {
                _ready.Add(sheet);
                return;
            }
        }

        sheet.Dispose();
    }
}
