using System.Formats.Tar;
using System.IO.Compression;
using System.Runtime.InteropServices;
using System.Security.Cryptography;
using System.Text.Json;

namespace Unikraft.Platform;

/// <summary>
/// An image in the OCI image layout, as Unikraft's tools write it: a layer with the kernel, perhaps one with an initrd, each marked by an annotation that says where in
/// it the file is, or by its media type; arguments and environment are those of the configuration.
/// </summary>
/// <remarks>OCI Image Format Specification 1.1. The bytes come from outside: every blob is checked against its digest.</remarks>
/// <param name="name">The name of the image, for errors.</param>
/// <param name="read">Reads a file of the layout by its path with forward slashes; null when there is none.</param>
internal sealed class OciLayout(string name, Func<string, CancellationToken, Task<byte[]?>> read)
{
    internal const string MarkerFile = "oci-layout";

    private const string IndexFile = "index.json";
    private const string OwnMediaTypes = "application/vnd.unikraft.";
    private const string DigestAlgorithm = "sha256:";
    private const int DigestLength = 64;
    private const int MaxDepth = 4;

    /// <summary>The largest kernel or initrd in bytes: what is compressed to next to nothing must not take all of the host's memory.</summary>
    private const int MaxFileSize = 1 << 30;

    /// <summary>How many manifests and indexes are looked at: far more than an image has architectures and platforms.</summary>
    private const int MaxManifests = 1000;

    private static readonly LayerKind s_kernel = new("org.unikraft.kernel.image", $"{OwnMediaTypes}kernel.v1", "/unikraft/bin/kernel");
    private static readonly LayerKind s_initrd = new("org.unikraft.kernel.initrd", $"{OwnMediaTypes}initrd.v1", "/unikraft/bin/initrd");

    /// <summary>What an instance does not boot: symbols for a debugger; data that the guest finds as a disk, if its owner attaches it.</summary>
    private static readonly string[] s_ignoredMediaTypes = [$"{OwnMediaTypes}kernel.dbg.v1", $"{OwnMediaTypes}rom.v1"];

    private int _manifests;

    /// <summary>Reads the image for the machine's architecture.</summary>
    /// <exception cref="ImageException">It is not such an image, or is damaged.</exception>
    internal async Task<GuestImageContent> ReadAsync(CancellationToken cancellationToken)
    {
        try
        {
            byte[] index = await read(IndexFile, cancellationToken).ConfigureAwait(false) ?? throw Malformed($"has no {IndexFile}");
            using JsonDocument manifest = await FindManifestAsync(index, MaxDepth, cancellationToken).ConfigureAwait(false)
                ?? throw new ImageException(ImageError.WrongMachine, name, $"The image '{name}' has no manifest for x86-64. Build it for that architecture.");
            byte[] kernel = await ReadLayerAsync(manifest.RootElement, s_kernel, cancellationToken).ConfigureAwait(false)
                ?? throw Malformed($"has no layer with the annotation {s_kernel.Annotation} or of the type {s_kernel.MediaType}");
            byte[]? initrd = await ReadLayerAsync(manifest.RootElement, s_initrd, cancellationToken).ConfigureAwait(false);
            using JsonDocument configuration = JsonDocument.Parse(
                await ReadBlobAsync(manifest.RootElement.GetProperty("config"), cancellationToken).ConfigureAwait(false));
            return Combine(kernel, initrd, configuration.RootElement);
        }
        catch (Exception error) when (error is JsonException or KeyNotFoundException or InvalidOperationException or InvalidDataException or FormatException)
        {
            throw new ImageException(ImageError.Malformed, name, $"The image '{name}' is a damaged OCI image layout: {error.Message}", error);
        }
    }

    private static GuestImageContent Combine(byte[] kernel, byte[]? initrd, JsonElement configuration)
    {
        GuestImageContent content = new(kernel) { Initrd = initrd };
        if (!configuration.TryGetProperty("config", out JsonElement settings) || settings.ValueKind != JsonValueKind.Object)
        {
            return content;
        }

        Dictionary<string, string> environment = new(StringComparer.Ordinal);
        foreach (string variable in Strings(settings, "Env"))
        {
            string[] parts = variable.Split('=', 2);
            environment[parts[0]] = parts.Length > 1 ? parts[1] : "";
        }

        return content with { Args = [.. Strings(settings, "Entrypoint"), .. Strings(settings, "Cmd")], Env = environment };
    }

    private static IEnumerable<string> Strings(JsonElement settings, string property) =>
        settings.TryGetProperty(property, out JsonElement list) && list.ValueKind == JsonValueKind.Array
            ? list.EnumerateArray().Select(static entry => entry.GetString() ?? "")
            : [];

    private static bool IsForThisMachine(JsonElement descriptor)
    {
        string wanted = RuntimeInformation.OSArchitecture == Architecture.Arm64 ? "arm64" : "amd64";
        return !descriptor.TryGetProperty("platform", out JsonElement platform)
            || !platform.TryGetProperty("architecture", out JsonElement architecture)
            || architecture.GetString() is not { } found
            || string.Equals(found, wanted, StringComparison.Ordinal)
            || (string.Equals(found, "x86_64", StringComparison.Ordinal) && string.Equals(wanted, "amd64", StringComparison.Ordinal));
    }

    /// <summary>Goes from an index to the first manifest in it, or in an index in it, that is for this architecture.</summary>
    private async Task<JsonDocument?> FindManifestAsync(byte[] content, int depth, CancellationToken cancellationToken)
    {
        JsonDocument document = JsonDocument.Parse(content);
        if (!document.RootElement.TryGetProperty("manifests", out JsonElement manifests))
        {
            return document;
        }

        using (document)
        {
            foreach (JsonElement descriptor in manifests.EnumerateArray())
            {
                if (depth > 0 && IsForThisMachine(descriptor))
                {
                    if (++_manifests > MaxManifests)
                    {
                        throw Malformed($"has more than {MaxManifests} manifests");
                    }

                    byte[] next = await ReadBlobAsync(descriptor, cancellationToken).ConfigureAwait(false);
                    if (await FindManifestAsync(next, depth - 1, cancellationToken).ConfigureAwait(false) is { } found)
                    {
                        return found;
                    }
                }
            }

            return null;
        }
    }

    private async Task<byte[]?> ReadLayerAsync(JsonElement manifest, LayerKind kind, CancellationToken cancellationToken)
    {
        foreach (JsonElement layer in manifest.GetProperty("layers").EnumerateArray())
        {
            if (PathIn(layer, kind) is { } path)
            {
                byte[] blob = await ReadBlobAsync(layer, cancellationToken).ConfigureAwait(false);
                string wanted = Normalize(path);
                return await ExtractAsync(blob, wanted, cancellationToken).ConfigureAwait(false) ?? throw Malformed($"has a layer without its file '{wanted}'");
            }

            string mediaType = MediaTypeOf(layer);
            if (mediaType.StartsWith(OwnMediaTypes, StringComparison.Ordinal)
                && PathIn(layer, s_kernel) is null
                && PathIn(layer, s_initrd) is null
                && !s_ignoredMediaTypes.Contains(mediaType, StringComparer.Ordinal))
            {
                // To leave it out could be to leave out what the image is about.
                throw Malformed($"has a layer of the type {mediaType}, which this version of the platform does not know");
            }
        }

        return null;
    }

    private static string MediaTypeOf(JsonElement layer) =>
        layer.TryGetProperty("mediaType", out JsonElement mediaType) ? mediaType.GetString() ?? "" : "";

    /// <summary>Where the file of a kind is in a layer; null when it is a layer of another kind.</summary>
    private static string? PathIn(JsonElement layer, LayerKind kind)
    {
        if (layer.TryGetProperty("annotations", out JsonElement annotations) && annotations.TryGetProperty(kind.Annotation, out JsonElement path))
        {
            return path.GetString() ?? "";
        }

        return string.Equals(MediaTypeOf(layer), kind.MediaType, StringComparison.Ordinal) ? kind.Path : null;
    }

    private async Task<byte[]> ReadBlobAsync(JsonElement descriptor, CancellationToken cancellationToken)
    {
        string digest = descriptor.GetProperty("digest").GetString() ?? "";
        string hash = digest.StartsWith(DigestAlgorithm, StringComparison.Ordinal) ? digest[DigestAlgorithm.Length..] : "";
        if (hash.Length != DigestLength || !hash.All(char.IsAsciiHexDigitLower))
        {
            // Not a path: it could lead out of the layout.
            throw Malformed($"refers to a blob by '{digest}', which is no SHA-256 digest");
        }

        byte[] blob = await read($"blobs/sha256/{hash}", cancellationToken).ConfigureAwait(false) ?? throw Malformed($"lacks the blob {digest}");
        return string.Equals(Convert.ToHexStringLower(SHA256.HashData(blob)), hash, StringComparison.Ordinal)
            ? blob
            : throw Malformed($"has a blob that does not match its digest {digest}. Copy it again");
    }

    private static async Task<byte[]?> ExtractAsync(byte[] layer, string path, CancellationToken cancellationToken)
    {
        Stream stream = new MemoryStream(layer);
        if (layer is [0x1F, 0x8B, ..])
        {
            stream = new GZipStream(stream, CompressionMode.Decompress);
        }

        await using (stream.ConfigureAwait(false))
        {
            return (await ReadTarAsync(stream, entry => string.Equals(entry, path, StringComparison.Ordinal), cancellationToken).ConfigureAwait(false))
                .GetValueOrDefault(path);
        }
    }

    /// <summary>Reads files of a tar archive.</summary>
    /// <exception cref="InvalidDataException">It is damaged, or one of the files is too large.</exception>
    internal static async Task<Dictionary<string, byte[]>> ReadTarAsync(Stream stream, Func<string, bool> isWanted, CancellationToken cancellationToken)
    {
        Dictionary<string, byte[]> files = new(StringComparer.Ordinal);
        TarReader reader = new(stream, leaveOpen: true);
        await using (reader.ConfigureAwait(false))
        {
            while (await NextAsync(reader, cancellationToken).ConfigureAwait(false) is { } entry)
            {
                string name = Normalize(entry.Name);
                // A file without content has no stream either.
                bool isFile = entry.DataStream is not null || entry.EntryType is TarEntryType.RegularFile or TarEntryType.V7RegularFile;
                if (isFile && isWanted(name))
                {
                    if (entry.Length > MaxFileSize)
                    {
                        throw new InvalidDataException($"its file '{name}' is said to have {entry.Length} bytes, and may have {MaxFileSize}");
                    }

                    using MemoryStream content = new();
                    await (entry.DataStream ?? Stream.Null).CopyToAsync(content, cancellationToken).ConfigureAwait(false);
                    files[name] = content.ToArray();
                }
            }
        }

        return files;
    }

    private static async Task<TarEntry?> NextAsync(TarReader reader, CancellationToken cancellationToken)
    {
        try
        {
            return await reader.GetNextEntryAsync(copyData: false, cancellationToken).ConfigureAwait(false);
        }
        catch (Exception error) when (error is OverflowException or ArgumentException or NotSupportedException)
        {
            // What the reader makes of some numbers and names that cannot be.
            throw new InvalidDataException($"it is no tar archive: {error.Message}", error);
        }
    }

    private static string Normalize(string path)
    {
        string trimmed = path.TrimStart('.', '/');
        return trimmed.TrimEnd('/');
    }

    private ImageException Malformed(string problem) => new(ImageError.Malformed, name, $"The image '{name}' is an OCI image layout that {problem}.");

    /// <summary>A kind of layer: the annotation that says where its file is, or the media type that says what it is, with the place where the file is then.</summary>
    private sealed record LayerKind(string Annotation, string MediaType, string Path);
}
