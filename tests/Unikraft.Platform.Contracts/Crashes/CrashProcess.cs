using System.Diagnostics;

namespace Unikraft.Platform.Contracts.Crashes;

/// <summary>A process that does random operations on data directories, and is killed.</summary>
public sealed class CrashProcess : IDisposable
{
    private CrashProcess(string[] arguments, bool locksFiles = true)
    {
        string program = Path.Combine(AppContext.BaseDirectory, "Unikraft.Platform.CrashChild.Tests.dll");
        ProcessStartInfo start = new(Environment.ProcessPath!.EndsWith("dotnet", StringComparison.Ordinal) ? Environment.ProcessPath : "dotnet", [program, .. arguments])
        {
            UseShellExecute = false,
            RedirectStandardInput = true,
            RedirectStandardOutput = true,

            // Nothing is compiled a second time, and inlined then: a call is told from others by the method that makes it.
            Environment = { ["DOTNET_TieredPGO"] = "0", ["DOTNET_gcServer"] = "0", ["DOTNET_EnableDiagnostics"] = "0", ["DOTNET_TC_CallCountThreshold"] = "7fffffff" },
        };
        if (!locksFiles)
        {
            start.Environment["DOTNET_SYSTEM_IO_DISABLEFILELOCKING"] = "1";
        }

        Process = Process.Start(start)!;
    }

    /// <summary>The process.</summary>
    public Process Process { get; }

    /// <summary>What it says.</summary>
    public StreamReader Output => Process.StandardOutput;

    /// <summary>Runs scripts, each on a directory of its own.</summary>
    /// <param name="guests">The folder of the guests for real machines, or <c>memory</c>.</param>
    /// <param name="operations">How many operations each has.</param>
    /// <param name="scripts">The directories, and where each is stopped.</param>
    public static CrashProcess Run(string guests, int operations, params IEnumerable<(string Directory, CrashPoint Point)> scripts) =>
        new(["run", guests, $"{operations}", .. scripts.SelectMany(script => (string[])[script.Directory, $"{script.Point.Seed}", script.Point.Call, $"{script.Point.Number}"])]);

    /// <summary>Opens a directory and keeps it.</summary>
    /// <param name="directory">The directory.</param>
    /// <param name="locksFiles">Whether .NET locks files there.</param>
    public static CrashProcess Hold(string directory, bool locksFiles = true) => new(["hold", directory], locksFiles);

    /// <summary>Kills it, if it runs.</summary>
    public void Dispose()
    {
        if (!Process.HasExited)
        {
            Process.Kill();
            Process.WaitForExit();
        }

        Process.Dispose();
    }
}
