using System.ComponentModel;
using System.Diagnostics;
using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Storage.Tests.Testing;

/// <summary>The contract facts of the class need skopeo.</summary>
[AttributeUsage(AttributeTargets.Class)]
public sealed class RequiresSkopeoAttribute : Attribute, IRequirement
{
    internal const string Skopeo = "skopeo";

    private static readonly Lazy<bool> IsThere = new(static () =>
    {
        try
        {
            using Process process = Process.Start(new ProcessStartInfo(Skopeo, ["--version"]) { UseShellExecute = false, RedirectStandardOutput = true })!;
            process.WaitForExit();
            return process.ExitCode == 0;
        }
        catch (Win32Exception)
        {
            return false;
        }
    });

    /// <inheritdoc/>
    public string? UnmetReason => IsThere.Value ? null : "There is no skopeo. Install the package 'skopeo'.";
}
