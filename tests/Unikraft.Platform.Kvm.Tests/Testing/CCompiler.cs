using System.Diagnostics;

namespace Unikraft.Platform.Kvm.Tests.Testing;

/// <summary>The C compiler of the system.</summary>
internal static class CCompiler
{
    private const string Command = "cc";

    private static readonly Lazy<string?> Problem = new(FindProblem);

    /// <summary>Why no program can be compiled against the headers of the kernel; null when it can.</summary>
    internal static string? UnmetReason => Problem.Value;

    /// <summary>Compiles and runs a program.</summary>
    /// <returns>What it printed.</returns>
    internal static async Task<string> RunAsync(string source)
    {
        DirectoryInfo folder = Directory.CreateTempSubdirectory("unikraft-layout-");
        try
        {
            string file = Path.Combine(folder.FullName, "program.c");
            string program = Path.Combine(folder.FullName, "program");
            await File.WriteAllTextAsync(file, source);
            ProcessResult compiled = await ProcessResult.RunAsync(Command, ["-std=gnu11", "-o", program, file]);
            Assert.True(compiled.ExitCode == 0, $"The program does not compile:\n{compiled.Output}");
            ProcessResult run = await ProcessResult.RunAsync(program, []);
            Assert.True(run.ExitCode == 0, $"The program ended with {run.ExitCode}:\n{run.Output}");
            return run.Output;
        }
        finally
        {
            folder.Delete(recursive: true);
        }
    }

    private static string? FindProblem()
    {
        try
        {
            using Process process = Process.Start(new ProcessStartInfo(Command, ["-fsyntax-only", "-x", "c", "-"])
            {
                RedirectStandardInput = true,
                RedirectStandardError = true,
                UseShellExecute = false,
                RedirectStandardOutput = true,
            })!;
            process.StandardInput.Write("#include <linux/kvm.h>\n#include <signal.h>\n");
            process.StandardInput.Close();
            string errors = process.StandardError.ReadToEnd();
            process.WaitForExit();
            return process.ExitCode == 0 ? null : $"{Command} does not find the headers of the kernel: {errors.Trim()}";
        }
        catch (System.ComponentModel.Win32Exception error)
        {
            return $"there is no C compiler: {error.Message}";
        }
    }
}
