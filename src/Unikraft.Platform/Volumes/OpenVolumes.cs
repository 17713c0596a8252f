using Unikraft.Platform.Hypervisors;

namespace Unikraft.Platform.Volumes;

/// <summary>The volumes and ROMs that one machine of an instance has open.</summary>
internal sealed record OpenVolumes(InstanceVolumes Owner, IReadOnlyList<VolumeMount> Mounts, IReadOnlyList<RomMount> Roms, IReadOnlyList<MachineDisk> Disks);
