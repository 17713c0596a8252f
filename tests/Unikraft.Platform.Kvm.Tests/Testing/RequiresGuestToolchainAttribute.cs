using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Kvm.Tests.Testing;

/// <summary>The contract facts of the class need the very compiler that the prebuilt guests were made with.</summary>
[AttributeUsage(AttributeTargets.Class)]
public sealed class RequiresGuestToolchainAttribute : Attribute, IRequirement
{
    private const int CannotVerify = 77;

    private static readonly Lazy<string?> Reason = new(() =>
    {
        ProcessResult result = Task.Run(() => ProcessResult.RunAsync("sh", [Repository.PathOf("guests/verify.sh")])).GetAwaiter().GetResult();
        return result.ExitCode == CannotVerify ? result.Output.Trim() : null;
    });

    /// <inheritdoc/>
    public string? UnmetReason => Reason.Value;
}
