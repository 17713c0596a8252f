namespace Unikraft.Platform.Volumes;

/// <summary>A ROM of an instance.</summary>
internal sealed record RomMount(int Slot, string Name, string Path, string At)
{
    /// <summary>ROMs as they are told.</summary>
    public static IReadOnlyList<InstanceRom> Describe(IReadOnlyList<RomMount> roms) => (InstanceRom[])
    [
        // An array: nobody's none is one and the same, and records that hold them equal.
        .. roms.Select(static rom => new InstanceRom { Name = rom.Name, Path = rom.Path, At = rom.At.Length == 0 ? null : rom.At }),
    ];
}
