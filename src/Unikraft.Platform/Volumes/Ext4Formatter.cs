using System.ComponentModel;
using System.Diagnostics;
using System.Globalization;

namespace Unikraft.Platform.Volumes;

/// <summary>Makes empty ext4 file systems with the host's own tool.</summary>
internal static class Ext4Formatter
{
    private const string Tool = "mkfs.ext4";

    /// <summary>What it says in the language that it is told to speak.</summary>
    private const string NoSpace = "No space left on device";

    // Where the tool is on systems whose users do not have it in their path.
    private static readonly string[] Directories = ["/usr/sbin", "/sbin", "/usr/local/sbin"];

    /// <summary>Makes a sparse file with an empty file system.</summary>
    /// <param name="tool">The path of the tool; looked for when <see langword="null"/>.</param>
    /// <param name="path">Where. Must not exist.</param>
    /// <param name="size">The size in bytes.</param>
    /// <param name="cancellationToken">Cancels; the file may be there then.</param>
    /// <exception cref="PlatformException">The tool is missing or failed.</exception>
    /// <exception cref="StorageException">There is no room.</exception>
    internal static async Task FormatAsync(string? tool, string path, long size, CancellationToken cancellationToken)
    {
        string program = tool ?? Find() ?? throw Missing("there is none on this host");
        using (ImageFile file = ImageFile.Create(path))
        {
            file.SetLength(size);
        }

        // Nothing is written in advance that the guest can write when it needs it; the volume stays small.
        ProcessStartInfo start = new(program)
        {
            UseShellExecute = false,
            RedirectStandardError = true,
            RedirectStandardOutput = true,
            RedirectStandardInput = true,
        };
        foreach (string argument in (string[])["-q", "-F", "-m", "0", "-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard", path])
        {
            start.ArgumentList.Add(argument);
        }

        start.Environment["LC_ALL"] = "C";

        using Process process = Start(start);
        Task<string> said = process.StandardError.ReadToEndAsync(cancellationToken);
        Task<string> printed = process.StandardOutput.ReadToEndAsync(cancellationToken);
        try
        {
            process.StandardInput.Close();
            await Task.WhenAll(said, printed).ConfigureAwait(false);
            await process.WaitForExitAsync(cancellationToken).ConfigureAwait(false);
        }
        catch (OperationCanceledException)
        {
            process.Kill();
            await process.WaitForExitAsync(CancellationToken.None).ConfigureAwait(false);
            throw;
        }

        if (process.ExitCode != 0)
        {
            string why = (await said.ConfigureAwait(false)).Trim();
            if (why.Contains(NoSpace, StringComparison.Ordinal))
            {
                throw new StorageException(path, $"There is no room to make a file system in '{path}'. Free some space on its file system and try again.", isFull: true);
            }

            throw new PlatformException(
                PlatformErrorCode.ToolMissing,
                string.Create(CultureInfo.InvariantCulture, $"'{program}' could not make a file system of {size} bytes, exit code {process.ExitCode}: {why}"));
        }

        using ImageFile made = ImageFile.Open(path, isReadOnly: false);
        made.Flush();
    }

    private static Process Start(ProcessStartInfo start)
    {
        try
        {
            return Process.Start(start) ?? throw Missing("it did not start");
        }
        catch (Win32Exception error)
        {
            throw Missing(error.Message);
        }
    }

    private static string? Find() =>
        (Environment.GetEnvironmentVariable("PATH") ?? "").Split(Path.PathSeparator, StringSplitOptions.RemoveEmptyEntries)
            .Concat(Directories)
            .Select(static directory => Path.Combine(directory, Tool))
            .FirstOrDefault(File.Exists);

    private static PlatformException Missing(string why) => new(
        PlatformErrorCode.ToolMissing,
        $"A volume cannot be formatted as ext4: {Tool} is needed, and {why}. Install e2fsprogs, or create the volume with the file system 'None'.");
}
