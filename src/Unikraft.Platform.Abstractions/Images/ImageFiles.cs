namespace Unikraft.Platform;

/// <summary>Reads images from files.</summary>
internal static class ImageFiles
{
    private const string KernelFile = "kernel";
    private const string InitrdFile = "initrd";
    private const string CommandLineFile = "cmdline";

    private const int TarMagicOffset = 257;

    private static ReadOnlySpan<byte> TarMagic => "ustar"u8;

    /// <summary>Reads an image of one file, or of a directory.</summary>
    internal static async Task<GuestImageContent> ReadAsync(string name, string path, CancellationToken cancellationToken)
    {
        if (Directory.Exists(path))
        {
            return await ReadDirectoryAsync(name, path, cancellationToken).ConfigureAwait(false);
        }

        byte[] file = await File.ReadAllBytesAsync(path, cancellationToken).ConfigureAwait(false);
        return file.Length > TarMagicOffset && file.AsSpan(TarMagicOffset).StartsWith(TarMagic)
            ? await ReadTarAsync(name, file, cancellationToken).ConfigureAwait(false)
            : new GuestImageContent(file);
    }

    /// <summary>Reads a kernel and its initrd.</summary>
    internal static async Task<GuestImageContent> ReadKernelAsync(string kernel, string? initrd, string? commandLine, CancellationToken cancellationToken) =>
        new(await File.ReadAllBytesAsync(kernel, cancellationToken).ConfigureAwait(false))
        {
            Initrd = initrd is null ? default(ReadOnlyMemory<byte>) : await File.ReadAllBytesAsync(initrd, cancellationToken).ConfigureAwait(false),
            CommandLine = commandLine,
        };

    private static async Task<GuestImageContent> ReadDirectoryAsync(string name, string path, CancellationToken cancellationToken)
    {
        if (File.Exists(Path.Combine(path, OciLayout.MarkerFile)))
        {
            return await new OciLayout(
                name,
                async (file, token) =>
                {
                    string full = Path.Combine(path, file);
                    return File.Exists(full) ? await File.ReadAllBytesAsync(full, token).ConfigureAwait(false) : null;
                }).ReadAsync(cancellationToken).ConfigureAwait(false);
        }

        string initrd = Path.Combine(path, InitrdFile);
        string commandLine = Path.Combine(path, CommandLineFile);
        return await ReadKernelAsync(
            Path.Combine(path, KernelFile),
            File.Exists(initrd) ? initrd : null,
            File.Exists(commandLine) ? (await File.ReadAllTextAsync(commandLine, cancellationToken).ConfigureAwait(false)).Trim() : null,
            cancellationToken).ConfigureAwait(false);
    }

    private static async Task<GuestImageContent> ReadTarAsync(string name, byte[] file, CancellationToken cancellationToken)
    {
        Dictionary<string, byte[]> files;
        try
        {
            using MemoryStream stream = new(file);
            files = await OciLayout.ReadTarAsync(stream, static _ => true, cancellationToken).ConfigureAwait(false);
        }
        catch (Exception error) when (error is InvalidDataException or FormatException)
        {
            throw new ImageException(ImageError.Malformed, name, $"The image '{name}' is a damaged tar archive: {error.Message} Copy it again.", error);
        }

        return files.ContainsKey(OciLayout.MarkerFile)
            ? await new OciLayout(name, (path, _) => Task.FromResult(files.GetValueOrDefault(path))).ReadAsync(cancellationToken).ConfigureAwait(false)
            : throw new ImageException(
                ImageError.UnknownFormat,
                name,
                $"The image '{name}' is a tar archive without the file '{OciLayout.MarkerFile}': only those of an OCI image layout can be used.");
    }
}
