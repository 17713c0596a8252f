using System.Globalization;
using Unikraft.Platform.TestKit;
using Unikraft.Platform.Volumes.Qcow2;
using Unikraft.Platform.Volumes.Tests.Testing;

namespace Unikraft.Platform.Volumes.Tests.Qcow2;

/// <summary>What QEMU makes is read, and what is refused says why.</summary>
[RequiresQemu]
public sealed class InteropTests : IDisposable
{
    private const int Size = 5 << 20;

    private readonly JudgedFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [ContractTheory]
    [InlineData("4k")]
    [InlineData("64k")]
    [InlineData("512k")]
    [InlineData("2M")]
    public void A_file_filled_by_qemu_reads_back_equal(string clusterSize)
    {
        string image = _folder["image.qcow2"];
        Qemu.Img("create", "-q", "-f", "qcow2", "-o", $"cluster_size={clusterSize}", image, "5M");
        Qemu.Io(image, "write -P 1 1000 70000", "write -P 2 2M 1M", "write -z 2100k 64k", "discard 2500k 200k", "write -P 3 5242368 512");

        AssertReadsAs(image, ToRaw(image));
    }

    [ContractTheory]
    [InlineData("4k")]
    [InlineData("64k")]
    [InlineData("2M")]
    public void Compressed_clusters_are_read_and_written_over(string clusterSize)
    {
        byte[] contents = MakeCompressible(Size);
        string raw = _folder["in.raw"];
        string image = _folder["image.qcow2"];
        File.WriteAllBytes(raw, contents);
        Qemu.Img("convert", "-q", "-c", "-O", "qcow2", "-o", $"cluster_size={clusterSize}", raw, image);
        Assert.DoesNotContain(" 0.00% compressed", Qemu.Img("check", image), StringComparison.Ordinal);
        AssertReadsAs(image, contents);

        Random random = new(1);
        Qcow2Image opened = ImageChain.Open(image, isReadOnly: false);
        DiskModel model = new(contents, random);
        for (int request = 0; request < 300; request++)
        {
            _ = model.Step(opened, 256 << 10);
        }

        opened.Release();
        File.WriteAllBytes(raw, model.Bytes);
        Qemu.AssertClean(image);
        Qemu.AssertEqual(image, raw);
    }

    [ContractTheory]
    [InlineData("raw")]
    [InlineData("qcow2")]
    public void A_chain_made_by_qemu_reads_back_equal(string format)
    {
        string raw = _folder["in.raw"];
        File.WriteAllBytes(raw, MakeCompressible(Size));
        Qemu.Img("convert", "-q", "-O", format, raw, _folder["base"]);
        Qemu.Img("create", "-q", "-f", "qcow2", "-b", "base", "-F", format, _folder["middle.qcow2"]);
        Qemu.Io(_folder["middle.qcow2"], "write -P 4 1M 300k", "write -z 3M 200k");
        Qemu.Img("create", "-q", "-f", "qcow2", "-o", "cluster_size=4k", "-b", "middle.qcow2", "-F", "qcow2", _folder["top.qcow2"], "7M");
        Qemu.Io(_folder["top.qcow2"], "write -P 5 1100k 3k", "write -P 6 6M 512");

        AssertReadsAs(_folder["top.qcow2"], ToRaw(_folder["top.qcow2"]));
    }

    [ContractFact]
    public async Task A_chain_of_our_own_reads_back_equal_in_qemu()
    {
        Random random = new(2);
        DiskModel model = new(new byte[Size], random);
        VolumeDisk volume = await VolumeDisk.CreateAsync(_folder["0.qcow2"], Size, clusterBits: 16);
        for (int depth = 1; depth <= 16; depth++)
        {
            for (int request = 0; request < 20; request++)
            {
                int offset = random.Next(Size / 512) * 512;
                byte[] data = new byte[Math.Min(random.Next(1, 200) * 512, Size - offset)];
                random.NextBytes(data);
                await volume.WriteAsync(offset, data);
                data.CopyTo(model.Bytes, offset);
            }

            PreparedOverlay overlay = await volume.PrepareOverlayAsync(_folder[string.Create(CultureInfo.InvariantCulture, $"{depth}.qcow2")]);
            await volume.HoldAsync();
            VolumeCut cut = volume.Cut(overlay);
            volume.Release();
            cut.Publish();
            await cut.DisposeAsync();
        }

        byte[] all = new byte[Size];
        await volume.ReadAsync(0, all);
        DiskModel.AssertEqual(model.Bytes, all, 0);
        await volume.FlushAsync();
        await volume.DisposeAsync();
        await File.WriteAllBytesAsync(_folder["reference.raw"], model.Bytes);
        Qemu.AssertEqual(_folder["16.qcow2"], _folder["reference.raw"]);
        Assert.All(Enumerable.Range(0, 17), depth => Qemu.AssertClean(_folder[string.Create(CultureInfo.InvariantCulture, $"{depth}.qcow2")]));
    }

    [ContractTheory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    [InlineData(4)]
    public void Chains_of_images_of_different_sizes_read_as_qemu_reads_them(int seed)
    {
        Random random = new(seed);
        string? below = null;
        for (int depth = 0; depth < 12; depth++)
        {
            string image = string.Create(CultureInfo.InvariantCulture, $"{depth}.qcow2");
            string size = (random.Next(1, Size / 512) * 512).ToString(CultureInfo.InvariantCulture);
            string clusters = random.Next(4) == 0 ? "cluster_size=4k" : "cluster_size=64k";
            string[] options = ["create", "-q", "-f", "qcow2", "-o", clusters, _folder[image], size];
            Qemu.Img(below is null ? options : [.. options[..^2], "-b", below, "-F", "qcow2", .. options[^2..]]);
            Qcow2Image opened = ImageChain.Open(_folder[image], isReadOnly: false);
            byte[] before = new byte[opened.Size];
            opened.Read(0, before);
            DiskModel model = new(before, random);
            for (int request = 0; request < 25; request++)
            {
                _ = model.Step(opened, 200 << 10);
            }

            opened.Release();
            AssertReadsAs(_folder[image], ToRaw(_folder[image]));
            below = image;
        }
    }

    [ContractTheory]
    [InlineData("extended_l2=on", "extended L2 entries")]
    [InlineData("data_file=data.raw", "external data file")]
    [InlineData("compression_type=zstd", "compression type")]
    public void Features_that_change_what_is_where_are_refused(string option, string name)
    {
        string image = _folder.Damaged("image.qcow2");
        Qemu.Img("create", "-q", "-f", "qcow2", "-o", option.Replace("data.raw", _folder["data.raw"], StringComparison.Ordinal), image, "1M");

        AssertUnsupported(image, name);
    }

    [ContractTheory]
    [InlineData(35, 2, "encryption")]
    [InlineData(7, 4, "version 4")]
    [InlineData(72, 1, "unknown incompatible feature 56")]
    public void Numbers_of_the_header_that_mean_more_than_is_known_are_refused(int offset, byte value, string name)
    {
        string image = _folder.Damaged("image.qcow2");
        Qemu.Img("create", "-q", "-f", "qcow2", image, "1M");
        byte[] bytes = File.ReadAllBytes(image);
        bytes[offset] = value;
        File.WriteAllBytes(image, bytes);

        AssertUnsupported(image, name);
    }

    [ContractTheory]
    [InlineData("4k")]
    [InlineData("64k")]
    [InlineData("2M")]
    public void An_image_with_lazy_refcounts_that_qemu_has_not_closed_is_repaired_when_it_is_opened(string clusterSize)
    {
        const int Kilobyte = 1024;
        const int Features = 79;
        string image = _folder["image.qcow2"];
        Qemu.Img("create", "-q", "-f", "qcow2", "-o", $"lazy_refcounts=on,cluster_size={clusterSize}", image, "5M");
        Qemu.IoThenKill(image, "write -P 1 100k 1M", "write -P 2 3M 300k", "write -z 320k 128k", "flush");
        Assert.Equal(1, File.ReadAllBytes(image)[Features] & 1);
        byte[] expected = new byte[Size];
        expected.AsSpan(100 * Kilobyte, 1024 * Kilobyte).Fill(1);
        expected.AsSpan(320 * Kilobyte, 128 * Kilobyte).Clear();
        expected.AsSpan(3072 * Kilobyte, 300 * Kilobyte).Fill(2);

        // Who only reads has nothing to repair, and changes nothing.
        AssertReadsAs(image, expected);
        Assert.Equal(1, File.ReadAllBytes(image)[Features] & 1);
        ImageChain.Open(image, isReadOnly: false).Release();
        Assert.Equal(0, File.ReadAllBytes(image)[Features] & 1);
        Qemu.AssertClean(image);
        DiskModel model = new(expected, new Random(4));
        Qcow2Image opened = ImageChain.Open(image, isReadOnly: false);
        for (int request = 0; request < 100; request++)
        {
            _ = model.Step(opened, 200 << 10);
        }

        opened.Release();
        File.WriteAllBytes(_folder["reference.raw"], model.Bytes);
        Qemu.AssertClean(image);
        Qemu.AssertEqual(image, _folder["reference.raw"]);
    }

    [ContractFact]
    public void Unknown_features_that_may_be_ignored_stay_and_those_that_a_writer_invalidates_go()
    {
        const int Compatible = 80;
        const int Automatic = 88;
        string image = _folder["image.qcow2"];
        Qemu.Img("create", "-q", "-f", "qcow2", image, "5M");
        byte[] bytes = File.ReadAllBytes(image);
        bytes[Compatible] = bytes[Automatic] = 0x80;
        File.WriteAllBytes(image, bytes);
        AssertReadsAs(image, new byte[Size]);
        Assert.Equal(0x80, File.ReadAllBytes(image)[Automatic]);

        Qcow2Image opened = ImageChain.Open(image, isReadOnly: false);
        opened.Write(1000, [1, 2, 3]);
        opened.Release();

        bytes = File.ReadAllBytes(image);
        Assert.Equal((0x80, 0), (bytes[Compatible], bytes[Automatic]));
        AssertReadsAs(image, ToRaw(image));
    }

    [ContractFact]
    public void What_cannot_be_kept_consistent_is_read_and_not_written()
    {
        string image = _folder["image.qcow2"];
        Qemu.Img("create", "-q", "-f", "qcow2", image, "1M");
        Qemu.Io(image, "write -P 7 0 128k");
        Qemu.Img("snapshot", "-c", "first", image);
        Qemu.Io(image, "write -P 8 64k 64k");
        AssertOnlyRead(image, "internal snapshots");

        Qemu.Img("snapshot", "-d", "first", image);
        ImageChain.Open(image, isReadOnly: false).Release();
        Qemu.Img("bitmap", "--add", image, "marks");
        AssertOnlyRead(image, "bitmaps");

        Qemu.Img("bitmap", "--remove", image, "marks");
        Qemu.Img("amend", "-o", "compat=0.10", image);
        AssertOnlyRead(image, "version 2");
    }

    [ContractFact]
    public void Backing_files_are_followed_within_the_directory_only()
    {
        string image = _folder.Damaged("image.qcow2");
        string outside = Path.Combine(Path.GetTempPath(), "outside.qcow2");
        Qemu.Img("create", "-q", "-f", "qcow2", image, "1M");
        AssertRefused(image, outside, "qcow2", "outside");
        AssertRefused(image, "../outside.qcow2", "qcow2", "outside");
        AssertRefused(image, "nbd:localhost:1", "raw", "not a file of this host");
        AssertRefused(image, "image.qcow2", "qcow2", "its own backing file");
        AssertRefused(image, "base.vmdk", "vmdk", "neither qcow2 nor raw");

        File.CreateSymbolicLink(_folder.Damaged("link.qcow2"), outside);
        AssertRefused(image, "link.qcow2", "qcow2", "symbolic link");

        Qemu.Img("create", "-q", "-f", "qcow2", _folder.Damaged("other.qcow2"), "1M");
        Qemu.Img("rebase", "-u", "-f", "qcow2", "-b", "image.qcow2", "-F", "qcow2", _folder["other.qcow2"]);
        AssertRefused(image, "other.qcow2", "qcow2", "its own backing file");
    }

    [ContractFact]
    public void A_file_has_one_writer()
    {
        string image = _folder["image.qcow2"];
        Qemu.Img("create", "-q", "-f", "qcow2", image, "1M");
        Qcow2Image writer = ImageChain.Open(image, isReadOnly: false);

        Assert.Equal(DiskImageError.InUse, Assert.Throws<DiskImageException>(() => ImageChain.Open(image, isReadOnly: true)).Error);
        writer.Release();
        Qcow2Image reader = ImageChain.Open(image, isReadOnly: true);
        Qcow2Image another = ImageChain.Open(image, isReadOnly: true);
        Assert.Equal(DiskImageError.InUse, Assert.Throws<DiskImageException>(() => ImageChain.Open(image, isReadOnly: false)).Error);
        Assert.Equal(BlockDeviceError.ReadOnly, Assert.Throws<BlockDeviceException>(() => reader.Write(0, new byte[512])).Error);
        reader.Release();
        another.Release();
    }

    [ContractFact]
    public void Other_files_are_refused()
    {
        Assert.Equal(DiskImageError.Unreadable, Assert.Throws<DiskImageException>(() => ImageChain.Open(_folder["missing"], isReadOnly: true)).Error);
        File.WriteAllText(_folder["text"], "no image");
        Assert.Equal(DiskImageError.WrongFormat, Assert.Throws<DiskImageException>(() => ImageChain.Open(_folder["text"], isReadOnly: true)).Error);
    }

    private static void AssertUnsupported(string image, string name)
    {
        DiskImageException error = Assert.Throws<DiskImageException>(() => ImageChain.Open(image, isReadOnly: true));
        Assert.Equal(DiskImageError.Unsupported, error.Error);
        Assert.Equal(image, error.Path);
        Assert.Contains(name, error.Message, StringComparison.Ordinal);
    }

    private static void AssertRefused(string image, string backing, string format, string reason)
    {
        Qemu.Img("rebase", "-u", "-f", "qcow2", "-b", backing, "-F", format, image);
        DiskImageException error = Assert.Throws<DiskImageException>(() => ImageChain.Open(image, isReadOnly: true));
        Assert.Equal(DiskImageError.BackingFileRefused, error.Error);
        Assert.Contains(reason, error.Message, StringComparison.Ordinal);
    }

    private void AssertOnlyRead(string image, string reason)
    {
        AssertReadsAs(image, ToRaw(image));
        DiskImageException error = Assert.Throws<DiskImageException>(() => ImageChain.Open(image, isReadOnly: false));
        Assert.Equal(DiskImageError.Unsupported, error.Error);
        Assert.Contains(reason, error.Message, StringComparison.Ordinal);
    }

    private byte[] ToRaw(string image)
    {
        Qemu.Img("convert", "-q", "-f", "qcow2", "-O", "raw", image, _folder["out.raw"]);
        return File.ReadAllBytes(_folder["out.raw"]);
    }

    private static void AssertReadsAs(string image, byte[] expected)
    {
        Qcow2Image opened = ImageChain.Open(image, isReadOnly: true);
        byte[] all = new byte[opened.Size];
        opened.Read(0, all);
        DiskModel.AssertEqual(expected, all, 0);

        // In pieces that are no multiple of anything.
        for (int offset = 0; offset < all.Length; offset += 7919)
        {
            byte[] piece = new byte[Math.Min(7919, all.Length - offset)];
            opened.Read(offset, piece);
            DiskModel.AssertEqual(expected.AsSpan(offset, piece.Length), piece, offset);
        }

        opened.Release();
    }

    private static byte[] MakeCompressible(int size)
    {
        // Runs of one byte, and now and then noise that compression cannot make smaller.
        Random random = new(3);
        byte[] bytes = new byte[size];
        for (int offset = 0; offset < size;)
        {
            Span<byte> run = bytes.AsSpan(offset, Math.Min(random.Next(1, 9000), size - offset));
            if (random.Next(6) == 0)
            {
                random.NextBytes(run);
            }
            else
            {
                run.Fill((byte)random.Next(256));
            }

            offset += run.Length;
        }

        return bytes;
    }
}
