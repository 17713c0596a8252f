using System.ComponentModel;
using System.Diagnostics;
using System.Globalization;
using Unikraft.Platform.Volumes;
using Unikraft.Platform.Volumes.Qcow2;

namespace Unikraft.Platform.TestKit;

/// <summary>
/// Disk images that a test has left behind, judged by QEMU: <c>qemu-img check</c> finds nothing, and <c>qemu-img compare</c> finds no difference between the image, with
/// all beneath it, and a raw file of what is read of it here, or of what the test knows it to hold.
/// </summary>
public static class LeftImages
{
    private const int MaxPart = 1 << 20;

    private static bool MustJudge => string.Equals(Environment.GetEnvironmentVariable("CI"), "true", StringComparison.OrdinalIgnoreCase);

    /// <summary>Judges all qcow2 images below a directory, once nobody has them open any more.</summary>
    /// <param name="directory">The directory. There need not be one.</param>
    /// <param name="isExcepted">Which of them are damaged on purpose.</param>
    /// <returns>What is wrong with each that is not as it should be; where QEMU's tools are not installed, that nobody has looked at them: in CI, which fails then; elsewhere it is a
    /// warning on the error output.</returns>
    public static Task<IReadOnlyList<string>> FindProblemsAsync(string directory, Func<string, bool>? isExcepted = null) =>
        Task.Run(() => FindProblems(directory, isExcepted));

    /// <inheritdoc cref="FindProblemsAsync"/>
    public static IReadOnlyList<string> FindProblems(string directory, Func<string, bool>? isExcepted = null)
    {
        List<string> problems = [];
        if (!Directory.Exists(directory))
        {
            return problems;
        }

        // Elsewhere: the file system of the images may be full.
        string raw = Path.Combine(Path.GetTempPath(), $"unikraft-reference-{Guid.NewGuid():N}.raw");
        try
        {
            foreach (string image in Directory.EnumerateFiles(directory, "*.qcow2", SearchOption.AllDirectories))
            {
                if (isExcepted?.Invoke(image) is not true)
                {
                    problems.AddRange(Judge(directory, image, raw));
                }
            }
        }
        catch (Win32Exception error)
        {
            // Whoever runs everything wants to hear of it; for others the tests that cannot do without are skipped and say so, and this says what was not looked at.
            string problem = $"The disk images in '{directory}' are judged by nobody, for qemu-img cannot be run: {error.Message}. Install the package qemu-utils.";
            if (MustJudge)
            {
                problems.Add(problem);
            }
            else
            {
                Console.Error.WriteLine($"WARNING: {problem}");
            }
        }
        finally
        {
            File.Delete(raw);
        }

        return problems;
    }

    private static IEnumerable<string> Judge(string directory, string image, string raw)
    {
        (int code, string said) = RunQemu("check", "-q", "-f", "qcow2", image);
        if (code != 0)
        {
            return [string.Create(CultureInfo.InvariantCulture, $"qemu-img check of '{image}' ends with {code}: {said}")];
        }

        try
        {
            WriteReference(directory, image, raw);
        }
        catch (PlatformException error)
        {
            return [$"'{image}' cannot be read: {error.Message}"];
        }

        (code, said) = RunQemu("compare", "-f", "qcow2", "-F", "raw", image, raw);
        return code == 0 && !said.Contains("Warning", StringComparison.Ordinal)
            ? []
            : [string.Create(CultureInfo.InvariantCulture, $"qemu-img compare of '{image}' with what is read of it here ends with {code}: {said}")];
    }

    /// <summary>Writes what is read of an image here. What is nowhere in its chain is a hole of the file, so that the size of the disk does not matter.</summary>
    private static void WriteReference(string directory, string image, string raw)
    {
        Qcow2Image opened = ImageChain.Open(image, isReadOnly: true, directory, outside: ListOutside(image));
        try
        {
            using FileStream file = new(raw, FileMode.Create, FileAccess.Write, FileShare.None, bufferSize: 0);
            file.SetLength(opened.Size);
            byte[] buffer = new byte[MaxPart];
            for (long offset = 0; offset < opened.Size;)
            {
                (bool isZero, int length) = Find(opened, offset, (int)Math.Min(opened.Size - offset, int.MaxValue));
                if (!isZero)
                {
                    length = Math.Min(length, MaxPart);
                    Span<byte> part = buffer.AsSpan(0, length);
                    opened.Read(offset, part);
                    if (part.ContainsAnyExcept((byte)0))
                    {
                        file.Position = offset;
                        file.Write(part);
                    }
                }

                offset += length;
            }
        }
        finally
        {
            opened.Release();
        }
    }

    private static (bool IsZero, int Length) Find(Qcow2Image top, long offset, int length)
    {
        BlockLayer? layer = top;
        while (layer is Qcow2Image image && offset < image.Size)
        {
            (ClusterKind kind, int run) = image.Find(offset, (int)Math.Min(length, image.Size - offset));
            length = Math.Min(length, run);
            if (kind != ClusterKind.Unallocated)
            {
                return (kind == ClusterKind.Zero, length);
            }

            layer = image.Backing;
        }

        return (layer is null || offset >= layer.Size, length);
    }

    // Bases that whoever made a volume has named, wherever they are.
    private static List<string> ListOutside(string image)
    {
        List<string> outside = [];
        for (string? next = image; next is not null;)
        {
            using ImageFile file = ImageFile.Open(next, isReadOnly: true);
            Qcow2Header header = Qcow2Header.Read(file);
            string? below = header.BackingFile is null ? null : Path.GetFullPath(Path.Combine(Path.GetDirectoryName(next)!, header.BackingFile));
            if (below is not null && Path.IsPathRooted(header.BackingFile))
            {
                outside.Add(below);
            }

            next = string.Equals(header.BackingFormat, Qcow2Image.FormatName, StringComparison.Ordinal) ? below : null;
        }

        return outside;
    }

    private static (int Code, string Said) RunQemu(params string[] arguments)
    {
        using Process process = Process.Start(new ProcessStartInfo("qemu-img", arguments)
        {
            UseShellExecute = false,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        })!;
        Task<string> errors = process.StandardError.ReadToEndAsync();
        string output = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        return (process.ExitCode, output + errors.GetAwaiter().GetResult());
    }
}
