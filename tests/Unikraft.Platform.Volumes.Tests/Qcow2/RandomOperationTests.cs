using System.Globalization;
using Unikraft.Platform.TestKit;
using Unikraft.Platform.Volumes.Qcow2;
using Unikraft.Platform.Volumes.Tests.Testing;

namespace Unikraft.Platform.Volumes.Tests.Qcow2;

/// <summary>120,000 random requests against an array, and QEMU's judgement of what they leave behind.</summary>
[RequiresQemu]
public sealed class RandomOperationTests : IDisposable
{
    private const int RequestsPerSeed = 500;
    private const int SmallCache = 32 << 10;

    private readonly JudgedFolder _folder = new();

    public static TheoryData<int> Seeds => [.. Enumerable.Range(0, 24)];

    public void Dispose() => _folder.Dispose();

    [ContractTheory]
    [MemberData(nameof(Seeds))]
    public void Images_of_our_own_hold_what_was_written(int group)
    {
        int[] clusterBits = [12, 13, 16, 18, 21];
        for (int seed = group * 5; seed < (group + 1) * 5; seed++)
        {
            Random random = new(seed);
            int bits = clusterBits[seed % clusterBits.Length];
            int size = random.Next(1, 64) * 65536 + random.Next(128) * DiskModel.Block;
            byte[]? below = random.Next(2) == 0 ? null : new byte[random.Next(1, 2 * size / DiskModel.Block) * DiskModel.Block];
            MemoryImageFile file = new(_folder["image.qcow2"]);
            if (below is not null)
            {
                random.NextBytes(below);
                File.WriteAllBytes(_folder["base.raw"], below);
            }

            Qcow2Image.Create(file, size, bits, below is null ? null : ("base.raw", "raw"));
            byte[] expected = new byte[size];
            below?.AsSpan(0, Math.Min(size, below.Length)).CopyTo(expected);
            Run(seed, random, file, below, new DiskModel(expected, random));
        }
    }

    [ContractTheory]
    [MemberData(nameof(Seeds))]
    public void Images_of_all_shapes_hold_what_was_written(int group)
    {
        for (int seed = group * 5; seed < (group + 1) * 5; seed++)
        {
            // Clusters of 512 bytes make the refcount table grow, and the L1 table large.
            Random random = new(1000 + seed);
            int clusterSize = 512 << random.Next(8);
            int refcountBits = 1 << random.Next(7);
            int size = random.Next(1, 100) * 65536;
            string lazy = random.Next(2) == 0 ? "on" : "off";
            string path = _folder["image.qcow2"];
            Qemu.Img(
                "create", "-q", "-f", "qcow2", "-o",
                string.Create(CultureInfo.InvariantCulture, $"cluster_size={clusterSize},refcount_bits={refcountBits},lazy_refcounts={lazy}"),
                path,
                size.ToString(CultureInfo.InvariantCulture));
            Run(seed, random, MemoryImageFile.Of(path), below: null, new DiskModel(new byte[size], random));
        }
    }

    private void Run(int seed, Random random, MemoryImageFile file, byte[]? below, DiskModel model)
    {
        List<string> history = [];
        Qcow2Image image = Open(file, below);
        try
        {
            for (int request = 0; request < RequestsPerSeed; request++)
            {
                history.Add(model.Step(image, Math.Max(model.Bytes.Length / 4, 2)));
                switch (random.Next(300))
                {
                    case 0:
                        history.Add("close");
                        image.Release();
                        image = Open(file, below);
                        break;
                    case 1:
                        // As if the process had ended: the file has all writes, but is not closed.
                        history.Add("abandon");
                        image.Flush();
                        file = file.Copy();
                        image = Open(file, below);
                        break;
                    case 2:
                        history.Add("resize");
                        model.Resize(image, model.Bytes.Length + random.Next(1, 40) * 17 * DiskModel.Block);
                        break;
                }
            }

            model.AssertSame(image);
            image.Release();
            string path = _folder["image.qcow2"];
            file.SaveTo(path);
            File.WriteAllBytes(_folder["reference.raw"], model.Bytes);
            Qemu.AssertClean(path);
            Qemu.AssertEqual(path, _folder["reference.raw"]);
        }
        catch (Exception error)
        {
            throw new InvalidOperationException(
                string.Create(CultureInfo.InvariantCulture, $"seed {seed}, request {history.Count}, after {string.Join(", ", history.TakeLast(12))}"),
                error);
        }
    }

    private static Qcow2Image Open(MemoryImageFile file, byte[]? below)
    {
        BlockLayer? backing = null;
        if (below is not null)
        {
            MemoryImageFile raw = new("/memory/base.raw") { IsReadOnly = true };
            raw.Write(0, below);
            backing = new RawLayer(raw);
        }

        return Qcow2Image.Open(file, Qcow2Header.Read(file), backing, SmallCache);
    }
}
