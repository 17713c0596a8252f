using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Volumes.Tests.Testing;

/// <summary>The contract facts of the class need qemu-img and qemu-io.</summary>
[AttributeUsage(AttributeTargets.Class)]
public sealed class RequiresQemuAttribute : Attribute, IRequirement
{
    /// <inheritdoc/>
    public string? UnmetReason => Qemu.UnmetReason;
}
