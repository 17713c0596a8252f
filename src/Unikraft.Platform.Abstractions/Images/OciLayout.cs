using System.Formats.Tar;
using System.IO.Compression;
using System.Runtime.InteropServices;
using System.Security.Cryptography;
using System.Text.Json;

namespace Unikraft.Platform;

/// <summary>
/// An image in the OCI image layout, as Unikraft's tools write it: a layer with the kernel, perhaps one with an initrd, each marked by an annotation that says where in
/// it the file is; arguments and environment are those of the configuration.
/// </summary>
/// <remarks>OCI Image Format Specification 1.1. The bytes come from outside: every blob is checked against its digest.</remarks>
/// <param name="name">The name of the image, for errors.</param>
/// <param name="read">Reads a file of the layout by its path with forward slashes; null when there is none.</param>
internal sealed class OciLayout(string name, Func<string, CancellationToken, Task<byte[]?>> read)
{
    internal const string MarkerFile = "oci-layout";

    private const string IndexFile = "index.json";
    private const string KernelAnnotation = "org.unikraft.kernel.image";
    private const string InitrdAnnotation = "org.unikraft.kernel.initrd";
    private const string DigestAlgorithm = "sha256:";
    private const int DigestLength = 64;
    private const int MaxDepth = 4;

    /// <summary>Reads the image for the machine's architecture.</summary>
    /// <exception cref="ImageException">It is not such an image, or is damaged.</exception>
    internal async Task<GuestImageContent> ReadAsync(CancellationToken cancellationToken)
    {
        try
        {
            byte[] index = await read(IndexFile, cancellationToken).ConfigureAwait(false) ?? throw Malformed($"has no {IndexFile}");
            using JsonDocument manifest = await FindManifestAsync(index, MaxDepth, cancellationToken).ConfigureAwait(false)
                ?? throw new ImageException(ImageError.WrongMachine, name, $"The image '{name}' has no manifest for x86-64. Build it for that architecture.");
            byte[] kernel = await ReadLayerAsync(manifest.RootElement, KernelAnnotation, cancellationToken).ConfigureAwait(false)
                ?? throw Malformed($"has no layer with the annotation {KernelAnnotation}");
            byte[]? initrd = await ReadLayerAsync(manifest.RootElement, InitrdAnnotation, cancellationToken).ConfigureAwait(false);
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

    private async Task<byte[]?> ReadLayerAsync(JsonElement manifest, string annotation, CancellationToken cancellationToken)
    {
        foreach (JsonElement layer in manifest.GetProperty("layers").EnumerateArray())
        {
            if (layer.TryGetProperty("annotations", out JsonElement annotations) && annotations.TryGetProperty(annotation, out JsonElement path))
            {
                byte[] blob = await ReadBlobAsync(layer, cancellationToken).ConfigureAwait(false);
                string wanted = Normalize(path.GetString() ?? "");
                return await ExtractAsync(blob, wanted, cancellationToken).ConfigureAwait(false) ?? throw Malformed($"has a layer without its file '{wanted}'");
            }
        }

        return null;
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
    internal static async Task<Dictionary<string, byte[]>> ReadTarAsync(Stream stream, Func<string, bool> isWanted, CancellationToken cancellationToken)
    {
        Dictionary<string, byte[]> files = new(StringComparer.Ordinal);
        TarReader reader = new(stream, leaveOpen: true);
        await using (reader.ConfigureAwait(false))
        {
            while (await reader.GetNextEntryAsync(copyData: false, cancellationToken).ConfigureAwait(false) is { } entry)
            {
                string name = Normalize(entry.Name);
                if (entry.DataStream is { } data && isWanted(name))
                {
                    using MemoryStream content = new();
                    await data.CopyToAsync(content, cancellationToken).ConfigureAwait(false);
                    files[name] = content.ToArray();
                }
            }
        }

        return files;
    }

    private static string Normalize(string path)
    {
        string trimmed = path.TrimStart('.', '/');
        return trimmed.TrimEnd('/');
    }

    private ImageException Malformed(string problem) => new(ImageError.Malformed, name, $"The image '{name}' is an OCI image layout that {problem}.");
}
