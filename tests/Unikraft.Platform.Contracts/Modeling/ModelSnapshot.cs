namespace Unikraft.Platform.Contracts.Modeling;

/// <summary>What somebody may continue from.</summary>
/// <param name="memory">The memory; <see langword="null"/> when there are volumes only, on which the image boots.</param>
/// <param name="mounts">The volumes as they were.</param>
/// <param name="roms">How many ROMs it has.</param>
public sealed class ModelSnapshot(ModelMemory? memory, IReadOnlyList<ModelMount> mounts, int roms)
{
    /// <summary>How many ROMs it has.</summary>
    public int Roms { get; } = roms;

    /// <summary>The memory; <see langword="null"/> when the image is booted.</summary>
    public ModelMemory? Memory { get; } = memory;

    /// <summary>The volumes, which do not change any more.</summary>
    public IReadOnlyList<ModelMount> Mounts { get; } = [.. mounts.Select(static mount => mount.Copy())];

    /// <summary>Whether it outlives the host, if anything does.</summary>
    public bool IsKept { get; set; }
}
