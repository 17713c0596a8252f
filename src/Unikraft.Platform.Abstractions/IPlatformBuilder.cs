using Unikraft.Platform.Hypervisors;

namespace Unikraft.Platform;

/// <summary>Puts a platform together. Backends add themselves by an extension method, such as <c>UseKvm()</c>.</summary>
public interface IPlatformBuilder
{
    /// <summary>Chooses the backend. The last call wins.</summary>
    /// <param name="factory">Makes the backend, once, when the platform is built. Validates the backend's options.</param>
    /// <returns>The builder.</returns>
    IPlatformBuilder UseHypervisor(Func<HypervisorContext, IHypervisor> factory);
}
