using System.Formats.Tar;
using System.IO.Compression;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json;

namespace Unikraft.Platform.TestKit;

/// <summary>Writes OCI image layouts as Unikraft's tools do.</summary>
/// <param name="folder">Where; it has to exist.</param>
public sealed class OciLayoutBuilder(string folder)
{
    /// <summary>The configuration: arguments <c>/server --port 80</c>, and a variable <c>A</c> of the value <c>b=c</c>.</summary>
    public const string Configuration =
        """{"architecture":"amd64","os":"qemu","config":{"Entrypoint":["/server"],"Cmd":["--port","80"],"Env":["A=b=c"]}}""";

    /// <summary>Whether layers are compressed with gzip.</summary>
    public bool IsCompressed { get; init; }

    /// <summary>Whether layers are told by their media types, as newer tools do, and not by annotations.</summary>
    public bool IsTyped { get; init; }

    /// <summary>The media type of a layer that an instance does not boot.</summary>
    public string FurtherType { get; init; } = "application/vnd.unikraft.rom.v1";

    /// <summary>Writes a layout with a kernel and an initrd, behind an index of an index that has another architecture first.</summary>
    /// <param name="kernel">The kernel.</param>
    /// <param name="initrd">The initrd.</param>
    public void Write(byte[] kernel, byte[] initrd)
    {
        string configuration = AddBlob(Encoding.UTF8.GetBytes(Configuration));
        string kernelLayer = AddLayer("unikraft/bin/kernel", kernel);
        string initrdLayer = AddLayer("./unikraft/bin/initrd", initrd);
        object[] typed =
        [
            new { digest = AddBlob("a rom"u8.ToArray()), mediaType = FurtherType },
            new { digest = kernelLayer, mediaType = "application/vnd.unikraft.kernel.v1" },
            new { digest = initrdLayer, mediaType = "application/vnd.unikraft.initrd.v1" },
        ];
        string manifest = AddJson(new Dictionary<string, object>
        {
            ["config"] = new { digest = configuration },
            ["layers"] = IsTyped ? typed :
            [
                new { digest = kernelLayer, annotations = new Dictionary<string, string> { ["org.unikraft.kernel.image"] = "/unikraft/bin/kernel" } },
                new { digest = initrdLayer, annotations = new Dictionary<string, string> { ["org.unikraft.kernel.initrd"] = "/unikraft/bin/initrd" } },
            ],
        });
        string inner = AddJson(new
        {
            manifests = new object[]
            {
                new { digest = "sha256:" + new string('0', 64), platform = new { architecture = "arm64", os = "qemu" } },
                new { digest = manifest, platform = new { architecture = "amd64", os = "qemu" } },
            },
        });
        WriteIndex(new { manifests = new object[] { new { digest = inner } } });
    }

    /// <summary>Makes the folder a layout with an index.</summary>
    /// <param name="index">What becomes the JSON of the index.</param>
    public void WriteIndex(object index)
    {
        File.WriteAllText(Path.Combine(folder, "oci-layout"), """{"imageLayoutVersion":"1.0.0"}""");
        File.WriteAllBytes(Path.Combine(folder, "index.json"), JsonSerializer.SerializeToUtf8Bytes(index));
    }

    /// <summary>Adds a blob of JSON.</summary>
    /// <param name="content">What becomes the JSON.</param>
    /// <returns>Its digest.</returns>
    public string AddJson(object content) => AddBlob(JsonSerializer.SerializeToUtf8Bytes(content));

    /// <summary>Adds a layer of one file.</summary>
    /// <param name="name">The path of the file in the layer.</param>
    /// <param name="content">What is in it.</param>
    /// <returns>The digest of the layer.</returns>
    public string AddLayer(string name, byte[] content)
    {
        byte[] layer = Tar(name, content);
        return AddBlob(IsCompressed ? Compress(layer) : layer);
    }

    /// <summary>Adds a blob.</summary>
    /// <param name="blob">The blob.</param>
    /// <returns>Its digest.</returns>
    public string AddBlob(byte[] blob)
    {
        string hash = Convert.ToHexStringLower(SHA256.HashData(blob));
        string blobs = Directory.CreateDirectory(Path.Combine(folder, "blobs", "sha256")).FullName;
        File.WriteAllBytes(Path.Combine(blobs, hash), blob);
        return $"sha256:{hash}";
    }

    /// <summary>Packs the layout. The archive knows of no owner: hosts need not have names for theirs.</summary>
    /// <param name="path">The tar file to write.</param>
    public void Pack(string path)
    {
        using FileStream stream = new(path, FileMode.CreateNew);
        using TarWriter writer = new(stream);
        foreach (string file in Directory.EnumerateFiles(folder, "*", SearchOption.AllDirectories).Order(StringComparer.Ordinal))
        {
            using FileStream content = File.OpenRead(file);
            writer.WriteEntry(new PaxTarEntry(TarEntryType.RegularFile, Path.GetRelativePath(folder, file)) { DataStream = content });
        }
    }

    /// <summary>A tar archive of one file.</summary>
    /// <param name="name">Its path.</param>
    /// <param name="content">What is in it.</param>
    public static byte[] Tar(string name, byte[] content)
    {
        using MemoryStream stream = new();
        using (TarWriter writer = new(stream, leaveOpen: true))
        {
            writer.WriteEntry(new PaxTarEntry(TarEntryType.RegularFile, name) { DataStream = new MemoryStream(content) });
        }

        return stream.ToArray();
    }

    /// <summary>Compresses with gzip.</summary>
    /// <param name="content">The bytes.</param>
    public static byte[] Compress(byte[] content)
    {
        using MemoryStream stream = new();
        using (GZipStream gzip = new(stream, CompressionLevel.Fastest))
        {
            gzip.Write(content);
        }

        return stream.ToArray();
    }
}
