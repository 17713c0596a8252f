namespace Unikraft.Platform.Contracts.Modeling;

/// <summary>A volume.</summary>
public sealed class ModelVolume : ModelResource
{
    /// <summary>The name; <see langword="null"/> for one that belongs to an instance or a snapshot.</summary>
    public string? Name { get; init; }

    /// <summary>The size in MiB.</summary>
    public int SizeMb { get; set; }

    /// <summary>Whether it is a template.</summary>
    public bool IsTemplate { get; set; }

    /// <summary>How many records the store has written to it.</summary>
    public int Records { get; set; }

    /// <summary>The last of them; <see langword="null"/> when there is none.</summary>
    public string? Value { get; set; }

    /// <summary>One with the same contents, which belongs to somebody else.</summary>
    public ModelVolume Copy(string? name = null) => new() { Name = name, SizeMb = SizeMb, Records = Records, Value = Value };
}
