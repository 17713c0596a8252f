using Unikraft.Platform.Volumes;

namespace Unikraft.Platform.Instances;

/// <summary>Changes of the ROMs of an instance.</summary>
internal static class RomPatch
{
    public static bool IsOfRoms(PatchOperation operation) => operation is PatchOperation.SetRoms or PatchOperation.AddRoms or PatchOperation.DelRoms;

    /// <summary>
    /// Checks what can be told without the instance, and that the files can be read. They are named from the root from then on: another process may open them.
    /// </summary>
    /// <exception cref="InvalidRequestException">One of the operations is not allowed.</exception>
    /// <exception cref="DiskImageException">A file is missing, or cannot be read.</exception>
    public static IReadOnlyList<PatchOperation> Resolve(IReadOnlyList<PatchOperation> operations) =>
        operations.Any(IsOfRoms) ? [.. operations.Select(Resolve)] : operations;

    private static PatchOperation Resolve(PatchOperation operation) => operation switch
    {
        PatchOperation.SetRoms set => new PatchOperation.SetRoms(Resolve(set.Roms)),
        PatchOperation.AddRoms add => new PatchOperation.AddRoms(Resolve(add.Roms)),
        PatchOperation.DelRoms { Names: null } => throw new InvalidRequestException("A patch of 'roms' has no value"),
        _ => operation,
    };

    private static InstanceRom[] Resolve(IReadOnlyList<InstanceRom>? roms)
    {
        VolumeRules.Require(volumes: null, roms ?? throw new InvalidRequestException("A patch of 'roms' has no value"));
        return [.. roms.Select(static rom =>
        {
            // Opened for nothing, so that what is wrong with it is heard of now.
            ImageFile.Open(rom.Path, isReadOnly: true).Dispose();
            return rom with { Path = Path.GetFullPath(rom.Path) };
        })];
    }
}
