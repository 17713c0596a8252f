using System.Buffers;

namespace Unikraft.Platform.Kvm.Memory;

/// <summary>Puts the extents of a map together, by ascending page, and numbers their layers on the way.</summary>
/// <remarks>
/// A guest that writes at random has an extent for every few pages, and a map is made for each snapshot of it: what lies between two changes is taken over as a whole, and layers are told
/// apart by their numbers in the map below.
/// </remarks>
internal sealed class PageMapBuilder : IDisposable
{
    private const int NoNumber = -1;
    private const int MinCapacity = 64;

    private readonly PageMap? _parent;
    private readonly int[] _numberOfParents;
    private readonly List<MemoryLayer> _layers = [];
    private readonly Dictionary<MemoryLayer, int> _numberOf = new(ReferenceEqualityComparer.Instance);
    private PageExtent[] _extents;
    private int[] _numbers;
    private int _count;
    private int _nextOfParent;

    /// <param name="parent">What <see cref="AddParent"/> takes extents from.</param>
    internal PageMapBuilder(PageMap? parent)
    {
        _parent = parent;
        _numberOfParents = new int[parent?.Layers.Count ?? 0];
        _numberOfParents.AsSpan().Fill(NoNumber);
        int capacity = Math.Max(MinCapacity, parent?.Extents.Length ?? 0);
        _extents = ArrayPool<PageExtent>.Shared.Rent(capacity);
        _numbers = ArrayPool<int>.Shared.Rent(capacity);
    }

    internal ReadOnlySpan<PageExtent> Extents => _extents.AsSpan(0, _count);

    /// <summary>For each extent, the number of its layer in <see cref="Layers"/>.</summary>
    internal ReadOnlySpan<int> LayerNumbers => _numbers.AsSpan(0, _count);

    /// <summary>The layers, by the first page that comes from each.</summary>
    internal IReadOnlyList<MemoryLayer> Layers => _layers;

    /// <summary>Numbers the layers of extents that are as a map has them.</summary>
    internal static PageMapBuilder Of(ReadOnlySpan<PageExtent> extents)
    {
        PageMapBuilder builder = new(parent: null);
        foreach (PageExtent extent in extents)
        {
            builder.Put(extent, builder.NumberOf(extent.Layer));
        }

        return builder;
    }

    /// <summary>Adds a run of pages that are not those of the parent.</summary>
    internal void Add(int start, int length, MemoryLayer layer) => Append(start, length, layer, NumberOf(layer));

    /// <summary>Adds what the parent has of some pages. They follow those that were asked for before.</summary>
    internal void AddParent(int from, int to)
    {
        if (_parent is null || from >= to)
        {
            return;
        }

        ReadOnlySpan<PageExtent> extents = _parent.Extents;
        int next = _nextOfParent;
        while (next < extents.Length && extents[next].End <= from)
        {
            next++;
        }

        while (next < extents.Length && extents[next].Start < to)
        {
            PageExtent extent = extents[next];
            int start = Math.Max(extent.Start, from);
            Append(start, Math.Min(extent.End, to) - start, extent.Layer, NumberOfParent(next));
            if (extent.End > to)
            {
                break;
            }

            int whole = ++next;
            while (next < extents.Length && extents[next].End <= to)
            {
                next++;
            }

            TakeOver(whole, next - whole);
        }

        _nextOfParent = next;
    }

    public void Dispose()
    {
        ArrayPool<PageExtent>.Shared.Return(_extents, clearArray: true);
        ArrayPool<int>.Shared.Return(_numbers);
        (_extents, _numbers, _count) = ([], [], 0);
    }

    /// <summary>Adds extents of the parent as they are.</summary>
    private void TakeOver(int first, int count)
    {
        Grow(count);
        _parent!.Extents.Slice(first, count).CopyTo(_extents.AsSpan(_count));
        for (int i = first; i < first + count; i++)
        {
            _numbers[_count++] = NumberOfParent(i);
        }
    }

    private void Append(int start, int length, MemoryLayer layer, int number)
    {
        if (_count > 0 && _extents[_count - 1] is var last && last.End == start && last.Layer == layer)
        {
            int part = Math.Min(length, PageExtent.MaxLength - last.Length);
            _extents[_count - 1] = last with { Length = last.Length + part };
            (start, length) = (start + part, length - part);
        }

        for (int end = start + length; start < end; start += PageExtent.MaxLength)
        {
            Put(new PageExtent(start, Math.Min(end - start, PageExtent.MaxLength), layer), number);
        }
    }

    private void Put(in PageExtent extent, int number)
    {
        Grow(1);
        (_extents[_count], _numbers[_count]) = (extent, number);
        _count++;
    }

    private void Grow(int more)
    {
        if (_count + more <= Math.Min(_extents.Length, _numbers.Length))
        {
            return;
        }

        int capacity = Math.Max(_count + more, 2 * _count);
        PageExtent[] extents = ArrayPool<PageExtent>.Shared.Rent(capacity);
        int[] numbers = ArrayPool<int>.Shared.Rent(capacity);
        Extents.CopyTo(extents);
        LayerNumbers.CopyTo(numbers);
        ArrayPool<PageExtent>.Shared.Return(_extents, clearArray: true);
        ArrayPool<int>.Shared.Return(_numbers);
        (_extents, _numbers) = (extents, numbers);
    }

    private int NumberOfParent(int extent)
    {
        ref int number = ref _numberOfParents[_parent!.LayerNumbers[extent]];
        if (number == NoNumber)
        {
            number = NumberOf(_parent.Extents[extent].Layer);
        }

        return number;
    }

    private int NumberOf(MemoryLayer layer)
    {
        if (_numberOf.TryAdd(layer, _layers.Count))
        {
            _layers.Add(layer);
        }

        return _numberOf[layer];
    }
}
