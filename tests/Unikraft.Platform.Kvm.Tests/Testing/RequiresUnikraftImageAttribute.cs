using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Kvm.Tests.Testing;

/// <summary>The contract facts of the class boot a Unikraft image, which takes hardware for ring 0 and the image.</summary>
[AttributeUsage(AttributeTargets.Class)]
public sealed class RequiresUnikraftImageAttribute : Attribute, IRequirement
{
    private const string ImageVariable = "UNIKRAFT_TEST_UNIKRAFT_IMAGE";

    /// <inheritdoc/>
    public string? UnmetReason =>
        !Directory.Exists("/sys/module/kvm_amd") && !Directory.Exists("/sys/module/kvm_intel")
            ? "this host does not virtualise ring 0 in hardware; eng/svm-lab does"
            : Path.Exists(Image)
                ? null
                : $"{ImageVariable} must name an image made by Unikraft's tools that prints something and ends; eng/svm-lab takes the one in artifacts/svm-lab/unikraft";

    /// <summary>The image.</summary>
    internal static string? Image => Environment.GetEnvironmentVariable(ImageVariable);
}
