using System.Formats.Tar;
using System.IO.Compression;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json;

namespace Unikraft.Platform.Abstractions.Tests.Images;

public sealed class ImageFilesTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("image").FullName;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [Fact]
    public async Task A_file_is_a_kernel_alone()
    {
        string file = Path.Combine(_folder, "vmlinuz");
        await File.WriteAllTextAsync(file, "kernel");
        GuestImageContent content = await GuestImage.FromFile(file).ReadContentAsync();
        Assert.Equal("kernel", Text(content.Kernel));
        Assert.True(content.Initrd.IsEmpty);
        Assert.Null(content.CommandLine);
    }

    [Fact]
    public async Task A_directory_has_a_kernel_and_what_it_is_booted_with()
    {
        await File.WriteAllTextAsync(Path.Combine(_folder, "kernel"), "kernel");
        await File.WriteAllTextAsync(Path.Combine(_folder, "initrd"), "initrd");
        await File.WriteAllTextAsync(Path.Combine(_folder, "cmdline"), "quiet root=/dev/vda\n");
        GuestImage image = _folder;
        GuestImageContent content = await image.ReadContentAsync();
        Assert.Equal("kernel", Text(content.Kernel));
        Assert.Equal("initrd", Text(content.Initrd));
        Assert.Equal("quiet root=/dev/vda", content.CommandLine);

        // Read once, pinned from then on.
        await File.WriteAllTextAsync(Path.Combine(_folder, "kernel"), "another");
        Assert.Same(content, await image.ReadContentAsync());
    }

    [Fact]
    public async Task A_directory_without_a_kernel_cannot_be_read()
    {
        ImageException error = await Assert.ThrowsAsync<ImageException>(() => GuestImage.FromFile(_folder).ReadContentAsync().AsTask());
        Assert.Equal(ImageError.Unreadable, error.Error);
    }

    [Theory]
    [InlineData(false, false, false)]
    [InlineData(true, false, false)]
    [InlineData(false, true, false)]
    [InlineData(false, false, true)]
    [InlineData(true, true, true)]
    public async Task An_oci_layout_has_kernel_initrd_arguments_and_environment(bool isTar, bool isCompressed, bool isTyped)
    {
        WriteLayout(isCompressed, isTyped);
        string path = _folder;
        if (isTar)
        {
            path = Path.Combine(_folder, "..", $"{Path.GetFileName(_folder)}.tar");
            await TarFile.CreateFromDirectoryAsync(_folder, path, includeBaseDirectory: false);
        }

        try
        {
            GuestImageContent content = await GuestImage.FromFile(path).ReadContentAsync();
            Assert.Equal("the kernel", Text(content.Kernel));
            Assert.Equal("the initrd", Text(content.Initrd));
            Assert.Equal(["/server", "--port", "80"], content.Args);
            Assert.Equal("b=c", content.Env["A"]);
            Assert.Null(content.CommandLine);
        }
        finally
        {
            if (isTar)
            {
                File.Delete(path);
            }
        }
    }

    [Fact]
    public async Task A_blob_that_was_changed_is_refused()
    {
        WriteLayout(isCompressed: false);
        string largest = Directory.EnumerateFiles(Path.Combine(_folder, "blobs", "sha256")).OrderByDescending(static file => new FileInfo(file).Length).First();
        byte[] content = await File.ReadAllBytesAsync(largest);
        content[^1] ^= 1;
        await File.WriteAllBytesAsync(largest, content);
        ImageException error = await Assert.ThrowsAsync<ImageException>(() => GuestImage.FromFile(_folder).ReadContentAsync().AsTask());
        Assert.Equal(ImageError.Malformed, error.Error);
        Assert.Contains("does not match its digest", error.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("""{"manifests":[{"digest":"sha256:../../../../etc/passwd"}]}""", ImageError.Malformed)]
    [InlineData("""{"manifests":[{"digest":"sha256:0000000000000000000000000000000000000000000000000000000000000000"}]}""", ImageError.Malformed)]
    [InlineData("""{"manifests":[{}]}""", ImageError.Malformed)]
    [InlineData("""{"manifests":7}""", ImageError.Malformed)]
    [InlineData("{", ImageError.Malformed)]
    [InlineData("""{"manifests":[{"platform":{"architecture":"riscv64"},"digest":"sha256:00"}]}""", ImageError.WrongMachine)]
    [InlineData("""{"manifests":[]}""", ImageError.WrongMachine)]
    public async Task A_hostile_index_is_refused(string index, ImageError expected)
    {
        await File.WriteAllTextAsync(Path.Combine(_folder, "oci-layout"), "{}");
        await File.WriteAllTextAsync(Path.Combine(_folder, "index.json"), index);
        ImageException error = await Assert.ThrowsAsync<ImageException>(() => GuestImage.FromFile(_folder).ReadContentAsync().AsTask());
        Assert.Equal(expected, error.Error);
    }

    [Fact]
    public async Task A_tar_file_that_is_no_layout_is_refused()
    {
        string path = Path.Combine(_folder, "files.tar");
        await File.WriteAllBytesAsync(path, Tar("something", "else"));
        ImageException error = await Assert.ThrowsAsync<ImageException>(() => GuestImage.FromFile(path).ReadContentAsync().AsTask());
        Assert.Equal(ImageError.UnknownFormat, error.Error);
    }

    private static string Text(ReadOnlyMemory<byte> bytes) => Encoding.UTF8.GetString(bytes.Span);

    private static byte[] Tar(string name, string content)
    {
        using MemoryStream stream = new();
        using (TarWriter writer = new(stream, leaveOpen: true))
        {
            writer.WriteEntry(new PaxTarEntry(TarEntryType.RegularFile, name) { DataStream = new MemoryStream(Encoding.UTF8.GetBytes(content)) });
        }

        return stream.ToArray();
    }

    private static byte[] Compress(byte[] content)
    {
        using MemoryStream stream = new();
        using (GZipStream gzip = new(stream, CompressionLevel.Fastest))
        {
            gzip.Write(content);
        }

        return stream.ToArray();
    }

    [Fact]
    public async Task A_layer_of_an_unknown_kind_is_refused_and_not_left_out()
    {
        WriteLayout(isCompressed: false, isTyped: true, "application/vnd.unikraft.modules.v1");
        ImageException error = await Assert.ThrowsAsync<ImageException>(() => GuestImage.FromFile(_folder).ReadContentAsync().AsTask());
        Assert.Equal(ImageError.Malformed, error.Error);
        Assert.Contains("application/vnd.unikraft.modules.v1", error.Message, StringComparison.Ordinal);
    }

    private void WriteLayout(bool isCompressed, bool isTyped = false, string furtherType = "application/vnd.unikraft.rom.v1")
    {
        Directory.CreateDirectory(Path.Combine(_folder, "blobs", "sha256"));
        File.WriteAllText(Path.Combine(_folder, "oci-layout"), """{"imageLayoutVersion":"1.0.0"}""");
        byte[] kernel = Tar("unikraft/bin/kernel", "the kernel");
        byte[] initrd = Tar("./unikraft/bin/initrd", "the initrd");
        string configuration = Add(Encoding.UTF8.GetBytes(
            """{"architecture":"amd64","os":"qemu","config":{"Entrypoint":["/server"],"Cmd":["--port","80"],"Env":["A=b=c"]}}"""));
        string kernelLayer = Add(isCompressed ? Compress(kernel) : kernel);
        string initrdLayer = Add(isCompressed ? Compress(initrd) : initrd);
        object[] typed =
        [
            new { digest = Add("a rom"u8.ToArray()), mediaType = furtherType },
            new { digest = kernelLayer, mediaType = "application/vnd.unikraft.kernel.v1" },
            new { digest = initrdLayer, mediaType = "application/vnd.unikraft.initrd.v1" },
        ];
        string manifest = Add(JsonSerializer.SerializeToUtf8Bytes(new Dictionary<string, object>
        {
            ["config"] = new { digest = configuration },
            ["layers"] = isTyped ? typed :
            [
                new { digest = kernelLayer, annotations = new Dictionary<string, string> { ["org.unikraft.kernel.image"] = "/unikraft/bin/kernel" } },
                new { digest = initrdLayer, annotations = new Dictionary<string, string> { ["org.unikraft.kernel.initrd"] = "/unikraft/bin/initrd" } },
            ],
        }));
        string inner = Add(JsonSerializer.SerializeToUtf8Bytes(new
        {
            manifests = new object[]
            {
                new { digest = "sha256:" + new string('0', 64), platform = new { architecture = "arm64", os = "qemu" } },
                new { digest = manifest, platform = new { architecture = "amd64", os = "qemu" } },
            },
        }));
        File.WriteAllBytes(Path.Combine(_folder, "index.json"), JsonSerializer.SerializeToUtf8Bytes(new { manifests = new object[] { new { digest = inner } } }));
    }

    private string Add(byte[] blob)
    {
        string hash = Convert.ToHexStringLower(SHA256.HashData(blob));
        File.WriteAllBytes(Path.Combine(_folder, "blobs", "sha256", hash), blob);
        return $"sha256:{hash}";
    }
}
