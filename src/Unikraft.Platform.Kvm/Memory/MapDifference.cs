namespace Unikraft.Platform.Kvm.Memory;

/// <summary>What an overlay changes of the map below it.</summary>
/// <param name="extents">The pages that it brings.</param>
/// <param name="zero">The pages that it makes zero, which may be so already; <see langword="null"/> for none.</param>
internal sealed class MapDifference(PageExtent[] extents, PageBitmap? zero)
{
    private readonly Lazy<LoadPlan> _plan = new(() => LoadPlan.Make(extents, GuestMemory.MapThreshold, isWhole: false));

    /// <summary>The pages that it brings, by ascending page and without overlap.</summary>
    internal ReadOnlySpan<PageExtent> Extents => extents;

    /// <summary>How to bring them.</summary>
    internal LoadPlan Plan => _plan.Value;

    /// <summary>The pages that it makes zero; <see langword="null"/> for none.</summary>
    internal PageBitmap? Zero => zero;
}
