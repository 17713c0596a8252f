using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Kvm.Tests.Testing;

/// <summary>The contract facts of the class need a C compiler and the headers of the kernel.</summary>
[AttributeUsage(AttributeTargets.Class)]
public sealed class RequiresKernelHeadersAttribute : Attribute, IRequirement
{
    /// <inheritdoc/>
    public string? UnmetReason => CCompiler.UnmetReason;
}
