using System.Formats.Tar;
using System.Text;
using Unikraft.Platform.TestKit;

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
        await File.WriteAllBytesAsync(path, OciLayoutBuilder.Tar("something", "else"u8.ToArray()));
        ImageException error = await Assert.ThrowsAsync<ImageException>(() => GuestImage.FromFile(path).ReadContentAsync().AsTask());
        Assert.Equal(ImageError.UnknownFormat, error.Error);
    }

    private static string Text(ReadOnlyMemory<byte> bytes) => Encoding.UTF8.GetString(bytes.Span);

    [Fact]
    public async Task A_layer_of_an_unknown_kind_is_refused_and_not_left_out()
    {
        WriteLayout(isCompressed: false, isTyped: true, "application/vnd.unikraft.modules.v1");
        ImageException error = await Assert.ThrowsAsync<ImageException>(() => GuestImage.FromFile(_folder).ReadContentAsync().AsTask());
        Assert.Equal(ImageError.Malformed, error.Error);
        Assert.Contains("application/vnd.unikraft.modules.v1", error.Message, StringComparison.Ordinal);
    }

    /// <summary>Blobs may be anything: what is no layer, no manifest, or no configuration is found out.</summary>
    [Theory]
    [InlineData("""{"layers":[]}""")]
    [InlineData("""{"config":{},"layers":[]}""")]
    [InlineData("""{"config":7,"layers":[{"digest":"KERNEL","mediaType":"application/vnd.unikraft.kernel.v1"}]}""")]
    [InlineData("""{"config":{"digest":"KERNEL"},"layers":[{"digest":"KERNEL","mediaType":"application/vnd.unikraft.kernel.v1"}]}""")]
    [InlineData("""{"config":{"digest":"CONFIGURATION"},"layers":{"digest":"KERNEL"}}""")]
    [InlineData("""{"config":{"digest":"CONFIGURATION"},"layers":[7]}""")]
    [InlineData("""{"config":{"digest":"CONFIGURATION"},"layers":[{"digest":"KERNEL","annotations":7}]}""")]
    [InlineData("""{"config":{"digest":"CONFIGURATION"},"layers":[{"digest":"KERNEL","annotations":{"org.unikraft.kernel.image":7}}]}""")]
    [InlineData("""{"config":{"digest":"CONFIGURATION"},"layers":[{"digest":"KERNEL","annotations":{"org.unikraft.kernel.image":"/elsewhere"}}]}""")]
    [InlineData("""{"config":{"digest":"CONFIGURATION"},"layers":[{"digest":"KERNEL","mediaType":7}]}""")]
    [InlineData("""{"config":{"digest":"CONFIGURATION"},"layers":[{"digest":"CONFIGURATION","mediaType":"application/vnd.unikraft.kernel.v1"}]}""")]
    [InlineData("""{"config":{"digest":"CONFIGURATION"},"layers":[{"digest":"CUT","mediaType":"application/vnd.unikraft.kernel.v1"}]}""")]
    [InlineData("""{"config":{"digest":"CONFIGURATION"},"layers":[{"digest":"CUTGZIP","mediaType":"application/vnd.unikraft.kernel.v1"}]}""")]
    public async Task A_hostile_manifest_is_refused(string manifest)
    {
        ArgumentNullException.ThrowIfNull(manifest);
        OciLayoutBuilder layout = new(_folder);
        byte[] tar = OciLayoutBuilder.Tar("unikraft/bin/kernel", new byte[5000]);
        string text = manifest
            .Replace("CONFIGURATION", layout.AddBlob(Encoding.UTF8.GetBytes(OciLayoutBuilder.Configuration)), StringComparison.Ordinal)
            .Replace("KERNEL", layout.AddBlob(tar), StringComparison.Ordinal)
            .Replace("CUTGZIP", layout.AddBlob(OciLayoutBuilder.Compress(tar)[..100]), StringComparison.Ordinal)
            .Replace("CUT", layout.AddBlob(tar[..3000]), StringComparison.Ordinal);
        layout.WriteIndex(new { manifests = new object[] { new { digest = layout.AddBlob(Encoding.UTF8.GetBytes(text)) } } });
        ImageException error = await Assert.ThrowsAsync<ImageException>(() => GuestImage.FromFile(_folder).ReadContentAsync().AsTask());
        Assert.Contains(error.Error, new[] { ImageError.Malformed, ImageError.Unreadable });
    }

    [Fact]
    public async Task A_file_that_would_take_all_memory_is_refused()
    {
        OciLayoutBuilder layout = new(_folder);
        byte[] tar = OciLayoutBuilder.Tar("unikraft/bin/kernel", "kernel"u8.ToArray());

        // The header of the file is the last one, before its block and two of zeroes. A size in binary, and the sum of all bytes with spaces in its own place.
        Span<byte> header = tar.AsSpan(tar.Length - 4 * 512, 512);
        header.Slice(124, 12).Clear();
        header[124] = 0x80;
        header[124 + 7] = 1;
        header.Slice(148, 8).Fill((byte)' ');
        int sum = 0;
        foreach (byte one in header)
        {
            sum += one;
        }

        Encoding.ASCII.GetBytes(Convert.ToString(sum, 8).PadLeft(6, '0') + "\0 ").CopyTo(header[148..]);
        layout.WriteIndex(new
        {
            manifests = new object[]
            {
                new
                {
                    digest = layout.AddJson(new
                    {
                        config = new { digest = layout.AddBlob("{}"u8.ToArray()) },
                        layers = new object[] { new { digest = layout.AddBlob(OciLayoutBuilder.Compress(tar)), mediaType = "application/vnd.unikraft.kernel.v1" } },
                    }),
                },
            },
        });
        ImageException error = await Assert.ThrowsAsync<ImageException>(() => GuestImage.FromFile(_folder).ReadContentAsync().AsTask());
        Assert.Equal(ImageError.Malformed, error.Error);
        Assert.Contains("may have 1073741824", error.Message, StringComparison.Ordinal);
    }

    /// <summary>Whatever is wrong with a packed layout, it is an image or a typed error.</summary>
    [Fact]
    public async Task A_packed_layout_with_changed_bytes_is_an_image_or_a_typed_error()
    {
        const int Rounds = 3000;
        WriteLayout(isCompressed: false, isTyped: true);
        string path = $"{_folder}.tar";
        try
        {
            await TarFile.CreateFromDirectoryAsync(_folder, path, includeBaseDirectory: false);
            byte[] sound = await File.ReadAllBytesAsync(path);
            Random random = new(20261122);
            int refused = 0;
            for (int round = 0; round < Rounds; round++)
            {
                byte[] changed = sound[..(random.Next(8) == 0 ? random.Next(512, sound.Length) : sound.Length)];
                for (int changes = random.Next(1, 4); changes > 0; changes--)
                {
                    changed[random.Next(changed.Length)] = (byte)random.Next(256);
                }

                await File.WriteAllBytesAsync(path, changed);
                try
                {
                    await GuestImage.FromFile(path).ReadContentAsync();
                }
                catch (ImageException)
                {
                    refused++;
                }
            }

            Assert.InRange(refused, Rounds / 10, Rounds);
        }
        finally
        {
            File.Delete(path);
        }
    }

    /// <summary>Indexes of indexes may lead to one another more often than anybody can wait for.</summary>
    [Fact]
    public async Task An_index_that_leads_on_and_on_is_refused()
    {
        const int Width = 1000;
        OciLayoutBuilder layout = new(_folder);
        string digest = layout.AddJson(new { manifests = Array.Empty<object>() });
        for (int depth = 0; depth < 4; depth++)
        {
            digest = layout.AddJson(new { manifests = Enumerable.Repeat(new { digest }, Width) });
        }

        layout.WriteIndex(new { manifests = Enumerable.Repeat(new { digest }, Width) });
        ImageException error = await Assert.ThrowsAsync<ImageException>(() => GuestImage.FromFile(_folder).ReadContentAsync().AsTask());
        Assert.Equal(ImageError.Malformed, error.Error);
    }

    private void WriteLayout(bool isCompressed, bool isTyped = false, string furtherType = "application/vnd.unikraft.rom.v1") =>
        new OciLayoutBuilder(_folder) { IsCompressed = isCompressed, IsTyped = isTyped, FurtherType = furtherType }
            .Write("the kernel"u8.ToArray(), "the initrd"u8.ToArray());
}
