using System.Buffers.Binary;
using System.Globalization;
using Unikraft.Platform.TestKit;
using Unikraft.Platform.Volumes.Qcow2;
using Unikraft.Platform.Volumes.Tests.Testing;

namespace Unikraft.Platform.Volumes.Tests.Qcow2;

/// <summary>20,000 damaged or malicious images, used as far as they can be: a typed error or none, never anything else.</summary>
public sealed class HostileImageTests
{
    private const int CasesPerGroup = 2500;
    private const int Size = 640 << 10;

    public static TheoryData<int> Groups => [.. Enumerable.Range(0, 8)];

    [Theory]
    [MemberData(nameof(Groups))]
    public void A_damaged_image_is_refused_or_used_but_never_trusted(int group)
    {
        MemoryImageFile whole = MakeImage(group);
        int refused = 0;
        for (int seed = group * CasesPerGroup; seed < (group + 1) * CasesPerGroup; seed++)
        {
            Random random = new(seed);
            MemoryImageFile file = whole.Copy();
            for (int damage = random.Next(1, 4); damage > 0; damage--)
            {
                Damage(file, random);
            }

            try
            {
                refused += Use(file, random);
            }
            catch (Exception error) when (error is not (DiskImageException or BlockDeviceException))
            {
                throw new InvalidOperationException(string.Create(CultureInfo.InvariantCulture, $"seed {seed}"), error);
            }
        }

        Assert.InRange(refused, CasesPerGroup / 20, CasesPerGroup);
    }

    [Fact]
    public void A_header_of_any_length_is_read_or_refused()
    {
        MemoryImageFile whole = MakeImage(0);
        for (int length = 0; length < 600; length++)
        {
            MemoryImageFile file = new();
            file.Write(0, whole.Contents[..length]);
            Assert.Throws<DiskImageException>(() => Qcow2Image.Open(file, Qcow2Header.Read(file), backing: null));
        }
    }

    [Theory]
    [InlineData(200)]
    [InlineData(4096 - 4)]
    [InlineData(4096 + 8)]
    [InlineData((64 << 10) - 8)]
    public void A_header_is_read_wherever_in_its_first_cluster_it_ends(int offset)
    {
        MemoryImageFile file = new();
        Qcow2Image.Create(file, Size, clusterBits: 16);
        byte[] name = new byte[12];
        BinaryPrimitives.WriteInt64BigEndian(name, offset);
        BinaryPrimitives.WriteInt32BigEndian(name.AsSpan(8), 8);
        file.Write(8, name);
        file.Write(offset, "beneath."u8);
        Assert.Equal("beneath.", Qcow2Header.Read(file).BackingFile);

        // An extension that nobody knows, which ends in the cluster too, and then one that does not.
        byte[] extension = new byte[8];
        BinaryPrimitives.WriteInt32BigEndian(extension, 1);
        BinaryPrimitives.WriteInt32BigEndian(extension.AsSpan(4), (64 << 10) - 104 - 8 - 64);
        file.Write(104, extension);
        Assert.Equal("beneath.", Qcow2Header.Read(file).BackingFile);
        BinaryPrimitives.WriteInt32BigEndian(extension.AsSpan(4), (64 << 10) - 104);
        file.Write(104, extension);
        Assert.Throws<DiskImageException>(() => Qcow2Header.Read(file));
    }

    [Fact]
    public void Tables_are_not_written_over_whatever_the_refcounts_say()
    {
        // Header, refcount table, refcount block, L1 table: all of them free, if the counts were true.
        MemoryImageFile file = new();
        Qcow2Image.Create(file, Size, clusterBits: 12);
        file.Write(2 * 4096, new byte[8]);
        byte[] tables = file.Contents[..(4 * 4096)].ToArray();
        Qcow2Image image = Qcow2Image.Open(file, Qcow2Header.Read(file), backing: null);

        BlockDeviceException error = Assert.Throws<BlockDeviceException>(() => image.Write(0, new byte[512]));

        Assert.Equal(BlockDeviceError.Corrupt, error.Error);
        DiskModel.AssertEqual(tables.AsSpan(512), file.Contents[512..(4 * 4096)], 512);
    }

    [Fact]
    public void Tables_are_not_part_of_the_disk_whatever_the_mapping_says()
    {
        MemoryImageFile file = new();
        Qcow2Image.Create(file, 4 << 20, clusterBits: 12);
        Qcow2Image image = Qcow2Image.Open(file, Qcow2Header.Read(file), backing: null);
        image.Write(0, new byte[4096]);
        image.Release();
        byte[] number = new byte[8];
        _ = file.Read(3 * 4096, number);
        long table = (long)(BinaryPrimitives.ReadUInt64BigEndian(number) & MappingEntry.OffsetMask);
        foreach (long target in new[] { 1L, 2, 3, table >> 12 })
        {
            BinaryPrimitives.WriteUInt64BigEndian(number, ((ulong)target << 12) | MappingEntry.Copied);
            file.Write(table, number);
            image = Qcow2Image.Open(file, Qcow2Header.Read(file), backing: null);
            Assert.Equal(BlockDeviceError.Corrupt, Assert.Throws<BlockDeviceException>(() => image.Write(0, new byte[4096])).Error);
        }

        // Two tables in one place.
        _ = file.Read(3 * 4096, number);
        file.Write(3 * 4096 + 8, number);
        DiskImageException refused = Assert.Throws<DiskImageException>(() => Qcow2Image.Open(file, Qcow2Header.Read(file), backing: null));
        Assert.Equal(DiskImageError.Corrupt, refused.Error);
    }

    private static int Use(MemoryImageFile file, Random random)
    {
        Qcow2Image image;
        try
        {
            image = Qcow2Image.Open(file, Qcow2Header.Read(file), backing: null, cacheBytes: 64 << 10);
        }
        catch (DiskImageException)
        {
            return 1;
        }

        int refused = 0;
        byte[] buffer = new byte[16384];
        for (int request = 0; request < 12; request++)
        {
            long offset = random.NextInt64(Math.Max(1, random.Next(2) == 0 ? Math.Min(image.Size, Size) : image.Size));
            int length = (int)Math.Min(random.Next(1, buffer.Length), image.Size - offset);
            try
            {
                switch (random.Next(6))
                {
                    case < 2:
                        image.Read(offset, buffer.AsSpan(0, length));
                        break;
                    case 2:
                        image.Write(offset, buffer.AsSpan(0, length));
                        break;
                    case 3:
                        image.Discard(offset, length);
                        break;
                    case 4:
                        image.WriteZeroes(offset, length);
                        break;
                    default:
                        image.Flush();
                        break;
                }
            }
            catch (BlockDeviceException error)
            {
                Assert.Contains(error.Error, (BlockDeviceError[])[BlockDeviceError.Corrupt, BlockDeviceError.NoSpace]);
                refused = 1;
            }
        }

        try
        {
            image.Release();
        }
        catch (BlockDeviceException)
        {
            refused = 1;
        }

        return refused;
    }

    private static void Damage(MemoryImageFile file, Random random)
    {
        // The header, and the tables behind it, in which every number matters.
        int end = (int)file.Length;
        int target = random.Next(3) switch { 0 => random.Next(112), 1 => random.Next(0, Math.Min(end, 5 << 12)), _ => random.Next(end) };
        byte[] bytes = new byte[8];
        _ = file.Read(target & ~7, bytes);
        ulong number = BinaryPrimitives.ReadUInt64BigEndian(bytes);
        ulong changed = random.Next(9) switch
        {
            0 => number ^ (1UL << random.Next(64)),
            1 => number + (ulong)random.Next(-3, 4) * 4096,
            2 => (ulong)random.NextInt64(),
            3 => ulong.MaxValue >> random.Next(64),
            4 => (ulong)random.Next(end / 4096 + 2) * 4096 | (random.Next(2) == 0 ? 1UL << 63 : 0),
            5 => 1UL << 62 | (ulong)random.NextInt64(1L << 62),
            6 => (number & 0xffff_ffff) | ((ulong)random.Next() << 32),
            7 => (number & ~0xffff_ffffUL) | (uint)random.Next(),
            _ => 0,
        };
        BinaryPrimitives.WriteUInt64BigEndian(bytes, changed);
        file.Write(target & ~7, bytes);
    }

    private static MemoryImageFile MakeImage(int seed)
    {
        MemoryImageFile file = new() { Capacity = 64 << 20 };
        Qcow2Image.Create(file, Size, clusterBits: 12, isDirty: seed % 4 == 3);
        Qcow2Image image = Qcow2Image.Open(file, Qcow2Header.Read(file), backing: null);
        DiskModel model = new(new byte[Size], new Random(seed));
        for (int request = 0; request < 40; request++)
        {
            _ = model.Step(image, 32 << 10);
        }

        image.Flush();
        if (seed % 4 != 3)
        {
            image.Release();
        }

        return file;
    }
}
