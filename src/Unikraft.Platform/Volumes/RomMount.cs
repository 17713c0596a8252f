namespace Unikraft.Platform.Volumes;

/// <summary>A ROM of an instance.</summary>
internal sealed record RomMount(int Slot, string Name, string Path, string At);
