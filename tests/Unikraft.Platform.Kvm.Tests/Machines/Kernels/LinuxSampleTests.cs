using System.Diagnostics;
using System.Text;
using Unikraft.Platform.Kvm.Tests.Testing;
using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Kvm.Tests.Machines.Kernels;

/// <summary>The sample <c>LinuxKernel</c> as a program of its own, with pipes for a terminal.</summary>
[RequiresKvm]
[RequiresLinuxKernel]
public sealed class LinuxSampleTests
{
    [ContractFact]
    public async Task It_takes_what_is_typed_and_shows_the_console_to_its_last_line()
    {
        ProcessStartInfo start = new(
            Environment.ProcessPath!,
            [Path.Combine(AppContext.BaseDirectory, "LinuxKernel.dll"), RequiresLinuxKernelAttribute.Kernel, RequiresLinuxKernelAttribute.Busybox, "2"])
        {
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
            UseShellExecute = false,
        };
        using Process process = Process.Start(start)!;
        StringBuilder output = new();
        try
        {
            while (await process.StandardOutput.ReadLineAsync().Guarded() is { } line)
            {
                output.AppendLine(line);
                if (line.Contains("on 2 vCPU(s). poweroff ends it.", StringComparison.Ordinal))
                {
                    await process.StandardInput.WriteLineAsync("echo answer=$((6*7)); poweroff -f");
                    await process.StandardInput.FlushAsync();
                }
            }

            await process.WaitForExitAsync().Guarded();
        }
        catch (TimeoutException error)
        {
            throw new TimeoutException($"The sample is silent. Its output:\n{output}", error);
        }
        finally
        {
            process.Kill();
        }

        string text = output.ToString();
        Assert.Equal(0, process.ExitCode);
        Assert.Contains("answer=42", text, StringComparison.Ordinal);
        int last = text.IndexOf("reboot: Power down", StringComparison.Ordinal);
        Assert.InRange(last, 0, text.IndexOf("linux has stopped: Kernel, App, exit code 0", StringComparison.Ordinal));
    }
}
