using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Tests;

/// <summary>The contract facts of the class need Prometheus' own tool, which CI installs.</summary>
[AttributeUsage(AttributeTargets.Class)]
public sealed class RequiresPromtoolAttribute : Attribute, IRequirement
{
    /// <inheritdoc/>
    public string? UnmetReason =>
        (Environment.GetEnvironmentVariable("PATH") ?? "").Split(':').Any(static folder => File.Exists(Path.Combine(folder, "promtool")))
            ? null
            : "There is no promtool on this machine: nobody but the library reads its Prometheus text. Install the package prometheus.";
}
