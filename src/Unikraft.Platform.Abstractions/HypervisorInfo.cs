namespace Unikraft.Platform;

/// <summary>A backend, and what it can do.</summary>
/// <param name="Name">Its short name, for example <c>kvm</c>.</param>
/// <param name="Description">One line for people, for example the flavour and version of the device.</param>
/// <param name="MaxVcpus">The largest number of vCPUs of a machine.</param>
/// <param name="MinMemoryMb">The smallest memory of a machine in MiB.</param>
/// <param name="MaxMemoryMb">The largest memory of a machine in MiB.</param>
public sealed record HypervisorInfo(string Name, string Description, int MaxVcpus, int MinMemoryMb, int MaxMemoryMb);
