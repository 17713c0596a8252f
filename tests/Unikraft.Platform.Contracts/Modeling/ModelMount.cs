namespace Unikraft.Platform.Contracts.Modeling;

/// <summary>A volume that an instance has, or will have.</summary>
/// <param name="volume">The volume.</param>
/// <param name="at">Where.</param>
/// <param name="isReadOnly">Whether it can only read it.</param>
public sealed class ModelMount(ModelVolume volume, string at, bool isReadOnly)
{
    /// <summary>Where a store has its records.</summary>
    public const string OfStore = "/data";

    /// <summary>The volume.</summary>
    public ModelVolume Volume { get; } = volume;

    /// <summary>Where.</summary>
    public string At { get; } = at;

    /// <summary>Whether the instance can only read it.</summary>
    public bool IsReadOnly { get; } = isReadOnly;

    /// <summary>What waits for the instance to stop.</summary>
    public VolumeUpdate? Pending { get; set; }

    /// <summary>Whether the instance has it now.</summary>
    public bool IsThere => Pending != VolumeUpdate.Attach;

    /// <summary>The same with a volume of its own.</summary>
    public ModelMount Copy() => new(Volume.Copy(), At, IsReadOnly);
}
