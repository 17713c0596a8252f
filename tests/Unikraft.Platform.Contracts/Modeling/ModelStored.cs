namespace Unikraft.Platform.Contracts.Modeling;

/// <summary>Something that instances are made from.</summary>
/// <param name="state">What such an instance is like.</param>
public abstract class ModelStored(ModelInstance state) : ModelResource
{
    /// <summary>What an instance made from it is like.</summary>
    public ModelInstance Contents { get; } = state;

    /// <summary>How often one was made.</summary>
    public int Loads { get; set; }
}
