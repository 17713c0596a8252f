using System.ComponentModel;
using System.Diagnostics;
using System.Globalization;

namespace Unikraft.Platform.Latency;

/// <summary>The C program that does the same with the least a KVM program must do: what the library needs above it is its own cost.</summary>
internal sealed class FloorProgram : IDisposable
{
    private readonly DirectoryInfo _folder;

    private FloorProgram(DirectoryInfo folder) => _folder = folder;

    private string Binary => Path.Combine(_folder.FullName, "floor");

    /// <summary>Builds the program with the system's compiler.</summary>
    /// <returns>The program; <see langword="null"/>, and why on standard error, when there is no compiler or it fails.</returns>
    internal static async Task<FloorProgram?> BuildAsync(CancellationToken cancellationToken)
    {
        string source = Path.Combine(AppContext.BaseDirectory, "floor", "floor.c");
        FloorProgram program = new(Directory.CreateTempSubdirectory("unikraft-floor-"));
        foreach (string compiler in (ReadOnlySpan<string>)["cc", "gcc"])
        {
            if (OnPath(compiler) is not { } path)
            {
                continue;
            }

            (int exitCode, _, string errors) = await ExecuteAsync(
                path,
                ["-std=c11", "-O2", "-pthread", "-o", program.Binary, source],
                cancellationToken);
            if (exitCode == 0)
            {
                return program;
            }

            await Console.Error.WriteLineAsync($"{path} cannot build the floor, so there is nothing to compare with:\n{errors}");
            program.Dispose();
            return null;
        }

        await Console.Error.WriteLineAsync(
            "There is no C compiler (cc or gcc), so there is no floor to compare with. On Debian: apt-get install gcc libc6-dev");
        program.Dispose();
        return null;
    }

    /// <summary>Runs the program.</summary>
    /// <returns>The samples it printed, in its units: nanoseconds or bytes.</returns>
    internal async Task<IReadOnlyList<double>> RunAsync(string[] arguments, CancellationToken cancellationToken)
    {
        (int exitCode, string output, string errors) = await ExecuteAsync(Binary, arguments, cancellationToken);
        return exitCode == 0
            ? [.. output.Split('\n', StringSplitOptions.RemoveEmptyEntries)
                .Select(line => double.Parse(line, CultureInfo.InvariantCulture))]
            : throw new InvalidOperationException($"floor {string.Join(' ', arguments)} failed ({exitCode}): {errors}");
    }

    public void Dispose() => _folder.Delete(recursive: true);

    private static string? OnPath(string program) => (Environment.GetEnvironmentVariable("PATH") ?? "")
        .Split(Path.PathSeparator, StringSplitOptions.RemoveEmptyEntries)
        .Select(folder => Path.Combine(folder, program))
        .FirstOrDefault(File.Exists);

    private static async Task<(int ExitCode, string Output, string Errors)> ExecuteAsync(
        string program,
        string[] arguments,
        CancellationToken cancellationToken)
    {
        using Process process = Process.Start(new ProcessStartInfo(program, arguments)
        {
            UseShellExecute = false,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        }) ?? throw new Win32Exception($"{program} cannot be started.");
        try
        {
            Task<string> output = process.StandardOutput.ReadToEndAsync(cancellationToken);
            Task<string> errors = process.StandardError.ReadToEndAsync(cancellationToken);
            await process.WaitForExitAsync(cancellationToken);
            return (process.ExitCode, await output, await errors);
        }
        catch (OperationCanceledException)
        {
            process.Kill();
            throw;
        }
    }
}
