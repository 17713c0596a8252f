using System.ComponentModel;
using System.Diagnostics;
using System.Globalization;

namespace Unikraft.Platform.Volumes.Tests.Testing;

/// <summary>The image tools of QEMU, which judge what is written here.</summary>
internal static class Qemu
{
    private static readonly Lazy<string?> Problem = new(FindProblem);

    /// <summary>Why they cannot be used; null when they can.</summary>
    internal static string? UnmetReason => Problem.Value;

    /// <summary>Runs qemu-img.</summary>
    /// <returns>What it printed.</returns>
    internal static string Img(params string[] arguments)
    {
        (int code, string output) = Run("qemu-img", arguments);
        Assert.True(code == 0, string.Create(CultureInfo.InvariantCulture, $"qemu-img {string.Join(' ', arguments)} ended with {code}:\n{output}"));
        return output;
    }

    /// <summary>Runs commands of qemu-io on an image.</summary>
    internal static void Io(string image, params string[] commands)
    {
        (int code, string output) = Run("qemu-io", [.. commands.SelectMany(command => new[] { "-c", command }), image]);
        Assert.True(code == 0 && !output.Contains("failed", StringComparison.OrdinalIgnoreCase), $"qemu-io ended with {code}:\n{output}");
    }

    /// <summary>Runs commands of qemu-io on an image, and kills it before it closes the image.</summary>
    internal static void IoThenKill(string image, params string[] commands)
    {
        (int code, string output) = Run("qemu-io", [.. commands.Append("sigraise 9").SelectMany(command => new[] { "-c", command }), image]);
        Assert.True(code == 128 + 9 && !output.Contains("failed", StringComparison.OrdinalIgnoreCase), $"qemu-io ended with {code}:\n{output}");
    }

    /// <summary>Neither an error nor a leaked cluster.</summary>
    internal static void AssertClean(string image) => Assert.Contains("No errors were found", Img("check", "-f", "qcow2", image), StringComparison.Ordinal);

    /// <summary>An image reads as a raw one does.</summary>
    internal static void AssertEqual(string image, string raw) => Img("compare", "-f", "qcow2", "-F", "raw", image, raw);

    /// <summary>What is on an image, with what it is based on.</summary>
    internal static byte[] Read(string image)
    {
        string raw = image + ".raw";
        Img("convert", "-f", "qcow2", "-O", "raw", image, raw);
        byte[] contents = File.ReadAllBytes(raw);
        File.Delete(raw);
        return contents;
    }

    private static (int Code, string Output) Run(string program, IEnumerable<string> arguments)
    {
        using Process process = Process.Start(new ProcessStartInfo(program, arguments)
        {
            RedirectStandardOutput = true,
            RedirectStandardError = true,
            UseShellExecute = false,
        })!;
        Task<string> errors = process.StandardError.ReadToEndAsync();
        string output = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        return (process.ExitCode, output + errors.GetAwaiter().GetResult());
    }

    private static string? FindProblem()
    {
        try
        {
            _ = Run("qemu-img", ["--version"]);
            _ = Run("qemu-io", ["--version"]);
            return null;
        }
        catch (Win32Exception error)
        {
            return $"qemu-img or qemu-io is missing (Debian: qemu-utils): {error.Message}";
        }
    }
}
