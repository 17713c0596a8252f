using Unikraft.Platform.Hypervisors;

namespace Unikraft.Platform.Hosting;

/// <summary>The backend that was chosen for the platform of a host.</summary>
internal sealed record HypervisorChoice(Func<HypervisorContext, IHypervisor> Factory);
