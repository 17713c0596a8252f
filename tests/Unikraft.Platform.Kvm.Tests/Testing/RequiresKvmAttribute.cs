using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Kvm.Tests.Testing;

/// <summary>The contract facts of the class need a KVM device that can be used.</summary>
[AttributeUsage(AttributeTargets.Class)]
public sealed class RequiresKvmAttribute : Attribute, IRequirement
{
    private static readonly Lazy<KvmSupport> Support = new(KvmProbe.Check);

    /// <inheritdoc/>
    public string? UnmetReason => Support.Value.IsUsable ? null : $"KVM cannot be used: {Support.Value.Message}";
}
