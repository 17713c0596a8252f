namespace Unikraft.Platform.Kvm.Memory;

/// <summary>A place for the page map of something that lives on while its layers are folded.</summary>
/// <param name="map">The map, which is taken over; <see langword="null"/> for memory that is all zero.</param>
internal sealed class SharedPageMap(PageMap? map) : IDisposable
{
    private readonly Lock _lock = new();
    private PageMap? _map = map;
    private bool _disposed;

    /// <summary>Another holder of the map.</summary>
    internal PageMap Share()
    {
        lock (_lock)
        {
            ObjectDisposedException.ThrowIf(_disposed || _map is null, this);
            return _map.Share();
        }
    }

    /// <summary>Puts a layer on top.</summary>
    /// <returns>Another holder of the new map.</returns>
    internal PageMap Overlay(LayerWriter layer)
    {
        lock (_lock)
        {
            ObjectDisposedException.ThrowIf(_disposed, this);
            PageMap overlaid = layer.Seal(_map);
            _map?.Dispose();
            _map = overlaid;
            return overlaid.Share();
        }
    }

    /// <summary>Another holder of the map; <see langword="null"/> when there is none any more.</summary>
    internal PageMap? TryShare()
    {
        lock (_lock)
        {
            return _disposed ? null : _map?.Share();
        }
    }

    /// <summary>Continues on a fold of a part of the map, or of one it was made from. Without effect when disposed of.</summary>
    /// <param name="ancestor">What was folded.</param>
    /// <param name="folded">The fold.</param>
    /// <param name="from">The first page of the part.</param>
    /// <param name="to">The first page after it.</param>
    internal void Rebase(PageMap ancestor, PageMap folded, int from, int to)
    {
        lock (_lock)
        {
            if (_map is { } map && !_disposed)
            {
                _map = map.Rebase(ancestor, folded, from, to);
                map.Dispose();
            }
        }
    }

    /// <summary>Continues on another form of the map. Without effect when it is one of another map.</summary>
    internal void Adopt(PageMap form)
    {
        lock (_lock)
        {
            if (_map is { } map && !_disposed && map.Identity == form.Identity)
            {
                _map = form.Share();
                map.Dispose();
            }
        }
    }

    public void Dispose()
    {
        lock (_lock)
        {
            _disposed = true;
            _map?.Dispose();
            _map = null;
        }
    }
}
