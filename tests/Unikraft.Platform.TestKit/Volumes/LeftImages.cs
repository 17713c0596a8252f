using System.ComponentModel;
using System.Diagnostics;

namespace Unikraft.Platform.TestKit;

/// <summary>Disk images that a test has left behind, judged by QEMU.</summary>
public static class LeftImages
{
    /// <summary>Checks all qcow2 images below a directory, once nobody has them open any more.</summary>
    /// <param name="directory">The directory. There need not be one.</param>
    /// <returns>What <c>qemu-img check</c> says of each image that is not clean; nothing where it is not installed.</returns>
    public static async Task<IReadOnlyList<string>> FindProblemsAsync(string directory)
    {
        List<string> problems = [];
        if (!Directory.Exists(directory))
        {
            return problems;
        }

        foreach (string image in Directory.EnumerateFiles(directory, "*.qcow2", SearchOption.AllDirectories))
        {
            ProcessStartInfo start = new("qemu-img", ["check", "-q", "-f", "qcow2", image]) { UseShellExecute = false, RedirectStandardOutput = true, RedirectStandardError = true };
            try
            {
                using Process check = Process.Start(start)!;
                string[] output = await Task.WhenAll(check.StandardOutput.ReadToEndAsync(), check.StandardError.ReadToEndAsync()).ConfigureAwait(false);
                await check.WaitForExitAsync().ConfigureAwait(false);
                if (check.ExitCode != 0)
                {
                    problems.Add($"{image}: {string.Concat(output)}");
                }
            }
            catch (Win32Exception)
            {
                // Not installed: the tests that cannot do without are skipped and say so.
                break;
            }
        }

        return problems;
    }
}
