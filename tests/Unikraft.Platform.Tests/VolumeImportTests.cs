using System.Diagnostics;
using System.Globalization;
using System.Text;
using Unikraft.Platform.Contracts;
using Unikraft.Platform.InMemory;
using Unikraft.Platform.TestKit;
using Unikraft.Platform.Volumes;

namespace Unikraft.Platform.Tests;

/// <summary>Volumes of disk images that QEMU has made: copied, or built upon, which leaves them as they were.</summary>
[RequiresDiskTools]
public sealed class VolumeImportTests : IDisposable
{
    private const int Kilobyte = 1 << 10;
    private const int Megabyte = 1 << 20;
    private const int Size = 5 * Megabyte;
    private const int WriteOffset = 1100 * Kilobyte + 512;
    private const string Raw = "in.raw";

    /// <summary>In the header. QEMU encrypts only after it has timed the processor, which fails now and then.</summary>
    private const int EncryptionMethod = 35;
    private const byte Luks = 2;

    private readonly JudgedFolder _directory = new();

    private string VolumeDirectory => _directory["volumes"];

    private string Elsewhere => _directory["elsewhere"];

    public void Dispose() => _directory.Dispose();

    [ContractTheory]
    [InlineData("raw")]
    [InlineData("converted")]
    [InlineData("compressed")]
    [InlineData("compressed 4k")]
    [InlineData("compressed 2M")]
    [InlineData("filled 4k")]
    [InlineData("filled 2M")]
    [InlineData("chain over raw")]
    [InlineData("chain over qcow2")]
    [InlineData("no whole MiB")]
    [InlineData("version 2")]
    [InlineData("internal snapshot")]
    [InlineData("not closed")]
    public async Task A_disk_image_of_qemu_is_copied_or_built_upon(string kind)
    {
        DiskImageFile file = Make(kind);
        byte[] content = ToRaw(file.Path);
        Dictionary<string, byte[]> before = Directory.EnumerateFiles(Elsewhere).ToDictionary(static path => path, File.ReadAllBytes, StringComparer.Ordinal);
        string copied;
        string built;
        byte[] written = [.. content];
        written.AsSpan(WriteOffset, Kilobyte).Fill(0xC5);
        await using (TestPlatform platform = NewPlatform())
        {
            IVolumeStore volumes = platform.Platform.Volumes;
            Volume copy = await volumes.CreateAsync(new CreateVolumeRequest { Name = "copy", CopyOf = file });
            copied = Assert.Single(Images());
            Volume based = await volumes.CreateAsync(new CreateVolumeRequest { Name = "based", BasedOn = file });
            built = Assert.Single(Images(), image => !string.Equals(image, copied, StringComparison.Ordinal));
            int megabytes = (content.Length + Megabyte - 1) / Megabyte;
            Assert.Equal((megabytes, megabytes, 1), (copy.SizeMb, based.SizeMb, copy.Depth));
            Assert.Equal((VolumeState.Available, VolumeState.Available), (copy.State, based.State));

            Assert.Equal(content, await ReadAsync(platform, "copy", content.Length));
            Assert.Equal(content, await ReadAsync(platform, "based", content.Length));
            await WriteAsync(platform, "copy");
            Assert.Equal(content, await ReadAsync(platform, "based", content.Length));
            await volumes.CloneAsync("based", new CloneVolumeRequest { Name = "clone" });
            await WriteAsync(platform, "based");
            Assert.Equal(written, await ReadAsync(platform, "based", content.Length));
            Assert.Equal(content, await ReadAsync(platform, "clone", content.Length));
        }

        AssertUntouched(before);
        foreach (string image in Images())
        {
            Assert.Equal(0, Run("qemu-img", "check", "-q", image));
        }

        // A copy needs nothing of what it was made of, and is what QEMU reads, too.
        await File.WriteAllBytesAsync(_directory["written.raw"], written);
        Assert.Equal(0, Run("qemu-img", "compare", "-q", "-f", "qcow2", "-F", "raw", copied, _directory["written.raw"]));
        await File.WriteAllBytesAsync(_directory["content.raw"], content);
        Assert.Equal(0, Run("qemu-img", "compare", "-q", "-f", "qcow2", "-F", "raw", built, _directory["content.raw"]));

        // The files that a volume is built upon are known after a restart.
        await using (TestPlatform again = NewPlatform())
        {
            Assert.Equal(written, await ReadAsync(again, "copy", content.Length));
            Assert.Equal(written, await ReadAsync(again, "based", content.Length));
            Assert.Equal(content, await ReadAsync(again, "clone", content.Length));
            foreach (string name in (string[])["copy", "based", "clone"])
            {
                await again.Platform.Volumes.DeleteAsync(name).Guarded();
            }

            await again.Platform.WhenVolumesIdleAsync();
            Assert.Empty(Images());
        }

        AssertUntouched(before);
    }

    [ContractTheory]
    [InlineData("zstd", "compression type")]
    [InlineData("extended L2", "extended L2 entries")]
    [InlineData("data file", "external data file")]
    [InlineData("encrypted", "encryption")]
    [InlineData("base outside", "outside")]
    [InlineData("no format of base", "rebase")]
    [InlineData("no image", "does not begin as one")]
    [InlineData("missing", "missing")]
    public async Task A_disk_image_that_is_refused_leaves_nothing_behind(string kind, string reason)
    {
        DiskImageFile file = MakeRefused(kind);
        await using TestPlatform platform = NewPlatform();
        IVolumeStore volumes = platform.Platform.Volumes;
        foreach (CreateVolumeRequest request in (CreateVolumeRequest[])[new() { Name = "data", CopyOf = file }, new() { Name = "data", BasedOn = file }])
        {
            DiskImageException error = await Assert.ThrowsAsync<DiskImageException>(() => volumes.CreateAsync(request));

            Assert.Contains(reason, error.Message, StringComparison.Ordinal);
            Assert.Contains(Path.GetFileName(file.Path), error.Message, StringComparison.Ordinal);
            Assert.Empty(volumes.List());
            Assert.Empty(Images());
        }

        // The name is free.
        await volumes.CreateAsync(new CreateVolumeRequest { Name = "data", SizeMb = 1, Filesystem = VolumeFilesystem.None });
    }

    private DiskImageFile Make(string kind)
    {
        Directory.CreateDirectory(Elsewhere);
        string raw = Path.Combine(Elsewhere, Raw);
        string image = Path.Combine(Elsewhere, "image.qcow2");
        byte[] content = new byte[Size];
        Random random = new(7);
        random.NextBytes(content.AsSpan(Megabyte, 300_000));
        content.AsSpan(3 * Megabyte, Megabyte).Fill(7);
        string[] options = kind.Split(' ')[^1] is "4k" or "2M" ? ["-o", "cluster_size=" + kind.Split(' ')[^1]] : [];
        File.WriteAllBytes(raw, content);
        switch (kind)
        {
            case "raw":
                return new DiskImageFile(raw, DiskImageFormat.Raw);
            case "converted":
                Img("convert", "-O", "qcow2", raw, image);
                break;
            case "compressed" or "compressed 4k" or "compressed 2M":
                Img(["convert", "-c", "-O", "qcow2", .. options, raw, image]);
                break;
            case "filled 4k" or "filled 2M":
                Img(["create", "-q", "-f", "qcow2", .. options, image, "5M"]);
                Io(image, "write -P 1 1000k 700k", "write -P 2 2M 1M", "write -z 2100k 64k", "discard 2500k 200k", "write -P 3 5242368 512");
                break;
            case "chain over raw":
                MakeChain("raw", Raw);
                break;
            case "chain over qcow2":
                Img("convert", "-c", "-O", "qcow2", raw, Path.Combine(Elsewhere, "base.qcow2"));
                MakeChain("qcow2", "base.qcow2");
                break;
            case "no whole MiB":
                Img("create", "-q", "-f", "qcow2", image, (Size + 512).ToString(CultureInfo.InvariantCulture));
                Io(image, "write -P 1 1M 100k", $"write -P 9 {Size} 512");
                break;
            case "version 2":
                Img("convert", "-O", "qcow2", "-o", "compat=0.10", raw, image);
                break;
            case "internal snapshot":
                Img("convert", "-O", "qcow2", raw, image);
                Img("snapshot", "-c", "first", image);
                Io(image, "write -P 8 1M 64k");
                break;
            default:
                Img("create", "-q", "-f", "qcow2", "-o", "lazy_refcounts=on", _directory.Damaged("elsewhere/image.qcow2"), "5M");
                Assert.Equal(128 + 9, Run("qemu-io", "-c", "write -P 1 100k 1M", "-c", "write -P 2 3M 300k", "-c", "flush", "-c", "sigraise 9", image));
                break;
        }

        return new DiskImageFile(image, DiskImageFormat.Qcow2);
    }

    private void MakeChain(string format, string below)
    {
        string middle = Path.Combine(Elsewhere, "middle.qcow2");
        Img("create", "-q", "-f", "qcow2", "-b", below, "-F", format, middle);
        Io(middle, "write -P 4 1M 300k", "write -z 3M 200k");
        string top = Path.Combine(Elsewhere, "image.qcow2");
        Img("create", "-q", "-f", "qcow2", "-o", "cluster_size=4k", "-b", "middle.qcow2", "-F", "qcow2", top, "7M");
        Io(top, "write -P 5 1100k 3k", "write -P 6 6M 512");
    }

    private DiskImageFile MakeRefused(string kind)
    {
        Directory.CreateDirectory(Elsewhere);
        string image = _directory.Damaged("elsewhere/image.qcow2");
        string outside = _directory["outside.qcow2"];
        string[] create = ["create", "-q", "-f", "qcow2"];
        switch (kind)
        {
            case "zstd":
                Img([.. create, "-o", "compression_type=zstd", image, "1M"]);
                break;
            case "extended L2":
                Img([.. create, "-o", "extended_l2=on", image, "1M"]);
                break;
            case "data file":
                Img([.. create, "-o", $"data_file={Path.Combine(Elsewhere, "data.raw")}", image, "1M"]);
                break;
            case "encrypted":
                Img([.. create, image, "1M"]);
                SetByte(image, EncryptionMethod, Luks);
                break;
            case "base outside":
                Img([.. create, outside, "1M"]);
                Img([.. create, "-b", outside, "-F", "qcow2", image]);
                break;
            case "no format of base":
                Img([.. create, Path.Combine(Elsewhere, "base.qcow2"), "1M"]);
                Img([.. create, "-b", "base.qcow2", "-F", "qcow2", image]);
                RemoveFormat(image);
                break;
            case "no image":
                File.WriteAllBytes(image, new byte[Megabyte]);
                break;
            default:
                image = Path.Combine(Elsewhere, "missing.qcow2");
                break;
        }

        return new DiskImageFile(image, DiskImageFormat.Qcow2);
    }

    // As older versions of QEMU have left it out: the extension of the header that says it becomes one that nobody knows.
    private static void RemoveFormat(string image) => SetByte(image, File.ReadAllBytes(image).AsSpan().IndexOf((ReadOnlySpan<byte>)[0xE2, 0x79, 0x2A, 0xCA]), 0x12);

    private static void SetByte(string image, int offset, byte value)
    {
        byte[] bytes = File.ReadAllBytes(image);
        bytes[offset] = value;
        File.WriteAllBytes(image, bytes);
    }

    private void AssertUntouched(Dictionary<string, byte[]> before)
    {
        Assert.Equal(before.Keys.Order(StringComparer.Ordinal), Directory.EnumerateFiles(Elsewhere).Order(StringComparer.Ordinal));
        foreach ((string path, byte[] content) in before)
        {
            Assert.True(content.AsSpan().SequenceEqual(File.ReadAllBytes(path)), $"'{path}' has changed");
        }
    }

    private static async Task<byte[]> ReadAsync(TestPlatform platform, NameOrUuid volume, int length) => Convert.FromBase64String(
        await RunAsync(platform, "reader", new InstanceVolume { Volume = volume, At = "/data", ReadOnly = true }, length.ToString(CultureInfo.InvariantCulture)));

    private static Task<string> WriteAsync(TestPlatform platform, NameOrUuid volume) => RunAsync(platform, "writer", new InstanceVolume { Volume = volume, At = "/data" });

    private static async Task<string> RunAsync(TestPlatform platform, string guest, InstanceVolume volume, params string[] args)
    {
        Instance instance = await platform.Instances.CreateAsync(TestPlatform.Request(guest, args) with { Volumes = [volume] }).Guarded();
        Instance stopped = await platform.WaitAsync(instance.Uuid, InstanceState.Stopped);
        Assert.Equal(0, stopped.ExitCode);
        string output = Encoding.ASCII.GetString(platform.Instances.ReadLog(instance.Uuid).Output.Span);
        await platform.Instances.DeleteAsync(instance.Uuid).Guarded();
        return output;
    }

    private byte[] ToRaw(string image)
    {
        string raw = _directory["reference.raw"];
        Img("convert", "-O", "raw", image, raw);
        return File.ReadAllBytes(raw);
    }

    private static void Img(params string[] arguments) => Assert.Equal(0, Run("qemu-img", arguments));

    private static void Io(string image, params string[] commands) =>
        Assert.Equal(0, Run("qemu-io", [.. commands.SelectMany(static command => new[] { "-c", command }), image]));

    private static int Run(string tool, params string[] arguments)
    {
        using Process process = Process.Start(new ProcessStartInfo(tool, arguments) { UseShellExecute = false, RedirectStandardOutput = true, RedirectStandardError = true })!;
        Task<string> errors = process.StandardError.ReadToEndAsync();
        string output = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        Assert.DoesNotContain("failed", output + errors.GetAwaiter().GetResult(), StringComparison.OrdinalIgnoreCase);
        return process.ExitCode;
    }

    private string[] Images() => Directory.Exists(VolumeDirectory)
        ? [.. Directory.EnumerateFiles(VolumeDirectory).Where(static path => path.EndsWith(".qcow2", StringComparison.Ordinal) || path.EndsWith(".raw", StringComparison.Ordinal))]
        : [];

    private TestPlatform NewPlatform() => new(
        static backend =>
        {
            backend.Guests["reader"] = static () => new FunctionGuest(static context =>
            {
                byte[] content = new byte[int.Parse(context.Args[1], CultureInfo.InvariantCulture)];
                Assert.Equal(0, context.ReadDisk(0, 0, content));
                context.Write(Encoding.ASCII.GetBytes(Convert.ToBase64String(content)));
                return GuestStep.Exit(0);
            });
            backend.Guests["writer"] = static () => new FunctionGuest(static context =>
            {
                byte[] content = new byte[Kilobyte];
                content.AsSpan().Fill(0xC5);
                Assert.Equal((0, 0), (context.WriteDisk(0, WriteOffset, content), context.FlushDisk(0)));
                return GuestStep.Exit(0);
            });
        },
        platform =>
        {
            platform.VolumeDirectory = VolumeDirectory;
            platform.LogCapacityBytes = 16 * Megabyte;
        });
}
