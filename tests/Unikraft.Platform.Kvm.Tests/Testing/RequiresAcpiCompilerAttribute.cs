using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Kvm.Tests.Testing;

/// <summary>The contract facts of the class need <c>iasl</c>, the compiler and disassembler of ACPI tables.</summary>
[AttributeUsage(AttributeTargets.Class)]
public sealed class RequiresAcpiCompilerAttribute : Attribute, IRequirement
{
    private static readonly Lazy<string?> Reason = new(() =>
    {
        try
        {
            return Task.Run(() => ProcessResult.RunAsync("iasl", ["-v"])).GetAwaiter().GetResult().ExitCode == 0
                ? null
                : "iasl does not run. Install acpica-tools again.";
        }
        catch (System.ComponentModel.Win32Exception)
        {
            return "there is no iasl. Install acpica-tools.";
        }
    });

    /// <inheritdoc/>
    public string? UnmetReason => Reason.Value;
}
