using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Kvm.Tests.Testing;

/// <summary>The contract facts of the class mount file systems, which only root may.</summary>
[AttributeUsage(AttributeTargets.Class)]
public sealed class RequiresMountAttribute : Attribute, IRequirement
{
    /// <inheritdoc/>
    public string? UnmetReason => Environment.IsPrivilegedProcess ? null : "only root can mount a file system. Run the tests as root.";
}
