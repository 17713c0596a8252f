using System.Globalization;
using System.Runtime.InteropServices;
using Unikraft.Platform.TestKit;
using Unikraft.Platform.Volumes.Qcow2;
using Unikraft.Platform.Volumes.Tests.Testing;

namespace Unikraft.Platform.Volumes.Tests.Qcow2;

/// <summary>
/// More than 2,000 power cuts at random, and one after every prefix of the writes of each of hundreds of intervals between two flushes, whole, with the next write torn, and reordered: each with some of the unflushed sectors on the disk and some not: the image opens, holds all that was flushed,
/// works, and QEMU finds nothing wrong with it. QEMU also repairs what the cut has left, and that holds all that was flushed, too.
/// </summary>
/// <remarks>What may be on a sector is told by a model that knows what was asked for and nothing of images; QEMU reads what is.</remarks>
[RequiresQemu]
public sealed class PowerCutTests : IDisposable
{
    private const int Sector = 512;
    private const int CutsPerSeed = 45;
    private const int SeedsPerGroup = 6;
    private const ulong BackingOperation = 1;
    private const int SeedsPerGroupOfPrefixes = 6;
    private const int IntervalsPerSeed = 16;

    /// <summary>QEMU judges one in so many of the cuts that leave out no prefix.</summary>
    private static readonly int JudgedPrefixes = Judging.OneIn(97, 97, 7);

    /// <summary>QEMU repairs what is left of one in so many.</summary>
    private static readonly int RepairedByQemu = Judging.OneIn(9, 3);

    // In memory: QEMU takes what it repairs to the disk.
    private readonly JudgedFolder _folder = new(Directory.Exists("/dev/shm") ? "/dev/shm" : null);

    public static TheoryData<int> Groups => [.. Enumerable.Range(0, 8)];

    public static TheoryData<int> GroupsOfPrefixes => [.. Enumerable.Range(0, 4)];

    public void Dispose() => _folder.Dispose();

    [ContractTheory]
    [MemberData(nameof(Groups))]
    public void What_was_flushed_is_there_after_a_power_cut(int group)
    {
        for (int seed = group * SeedsPerGroup; seed < (group + 1) * SeedsPerGroup; seed++)
        {
            try
            {
                new Scenario(seed, _folder).Run();
            }
            catch (Exception error)
            {
                throw new InvalidOperationException(string.Create(CultureInfo.InvariantCulture, $"seed {seed}"), error);
            }
        }
    }

    [ContractTheory]
    [MemberData(nameof(GroupsOfPrefixes))]
    public void Every_prefix_of_what_is_written_between_two_flushes_is_an_image(int group)
    {
        int cuts = 0;
        for (int seed = group * SeedsPerGroupOfPrefixes; seed < (group + 1) * SeedsPerGroupOfPrefixes; seed++)
        {
            try
            {
                cuts += new Scenario(seed, _folder, isEveryPrefix: true).RunOverEveryPrefix();
            }
            catch (Exception error)
            {
                throw new InvalidOperationException(string.Create(CultureInfo.InvariantCulture, $"seed {seed}"), error);
            }
        }

        Assert.InRange(cuts, 1500, int.MaxValue);
    }

    [Fact]
    public void A_flush_of_an_overlay_makes_durable_what_is_beneath_it()
    {
        for (int seed = 0; seed < 200; seed++)
        {
            Random random = new(seed);
            const int Size = 256 << 10;
            byte[] expected = new byte[Size];
            MemoryImageFile empty = new("/memory/frozen.qcow2");
            Qcow2Image.Create(empty, Size, clusterBits: 12);
            PowerCutFile below = new(empty);
            PowerCutFile above = new(new MemoryImageFile("/memory/top.qcow2"));
            Qcow2Image frozen = Qcow2Image.Open(below, Qcow2Header.Read(below), backing: null);
            DiskModel model = new(expected, random);
            Play(model, frozen);
            Qcow2Image top = Qcow2Image.CreateNew(above, Size, clusterBits: 12, frozen);
            frozen.Freeze();
            Play(model, top);
            top.Flush();

            MemoryImageFile foundBelow = below.Cut(random);
            MemoryImageFile foundAbove = above.Cut(random);
            Qcow2Image recovered = Qcow2Image.Open(
                foundAbove,
                Qcow2Header.Read(foundAbove),
                Qcow2Image.Open(foundBelow, Qcow2Header.Read(foundBelow), backing: null));
            model.AssertSame(recovered);
            recovered.Release();
            foundBelow.SaveTo(_folder["frozen.qcow2"]);
            foundAbove.SaveTo(_folder["top.qcow2"]);
            // By its name in this folder.
            Qemu.Img("rebase", "-q", "-u", "-f", "qcow2", "-b", "frozen.qcow2", "-F", "qcow2", _folder["top.qcow2"]);
            DiskModel.AssertEqual(model.Bytes, Qemu.Read(_folder["top.qcow2"]), 0);
        }

        static void Play(DiskModel model, Qcow2Image image)
        {
            for (int request = 0; request < 15; request++)
            {
                _ = model.Step(image, 32 << 10);
            }
        }
    }

    /// <summary>A guest that writes sectors it can recognise, and what each of them may be after a cut.</summary>
    private sealed class Scenario
    {
        private readonly int _seed;
        private readonly Random _random;
        private readonly JudgedFolder _folder;
        private readonly bool _hasBacking;
        private readonly int _sectors;
        private readonly PowerCutFile _file;
        private readonly MemoryImageFile _base;

        /// <summary>What may be found on each sector: by the guest, which has one answer unless it has discarded the sector; and after a cut, which may have any since the last flush.</summary>
        private readonly ulong[][] _now;
        private readonly ulong[][] _found;
        private readonly HashSet<int> _changed = [];
        private int _cuts;
        private int _pending;
        private int _prefixes;
        private ulong _operation = BackingOperation;

        internal Scenario(int seed, JudgedFolder folder, bool isEveryPrefix = false)
        {
            _seed = seed;
            _random = new Random(seed);
            _folder = folder;
            _hasBacking = _random.Next(2) == 0;
            _sectors = _random.Next(200, isEveryPrefix ? 1000 : 4000);
            _now = [.. Enumerable.Range(0, _sectors).Select(sector => (ulong[])[_hasBacking ? Stamp(BackingOperation, sector) : 0])];
            _found = [.. _now];
            _base = new MemoryImageFile("/memory/base.raw") { IsReadOnly = true };
            if (_hasBacking)
            {
                for (int sector = 0; sector < _sectors; sector++)
                {
                    _base.Write(sector * (long)Sector, Contents(BackingOperation, sector, 1));
                }

                _base.SaveTo(folder["base.raw"]);
            }

            MemoryImageFile empty = new(folder["image.qcow2"]);
            Qcow2Image.Create(empty, _sectors * (long)Sector, _random.Next(12, 15), _hasBacking ? ("base.raw", "raw") : null, isDirty: _random.Next(2) == 0);
            _file = new PowerCutFile(empty) { Moment = isEveryPrefix ? CutHere : PerhapsCut };
        }

        internal void Run()
        {
            Qcow2Image image = Open(_file);
            while (_cuts < CutsPerSeed)
            {
                Step(image);
                if (_random.Next(150) == 0)
                {
                    // Closing is flushing.
                    image.Release();
                    image = Open(_file);
                    Flushed();
                }
            }
        }

        /// <returns>How often the power went.</returns>
        internal int RunOverEveryPrefix()
        {
            Qcow2Image image = Open(_file);
            while (_file.Flushed.Count(static writes => writes > 0) < IntervalsPerSeed)
            {
                Step(image);
            }

            image.Release();
            CutHere();

            // An interval of n writes has n + 1 prefixes.
            Assert.Equal(_file.Flushed.Sum(static writes => writes + 1) + _file.Pending + 1, _prefixes);
            return _cuts;
        }

        private void Step(Qcow2Image image)
        {
            int first = _random.Next(_sectors);
            int count = Math.Min(_random.Next(4) == 0 ? _random.Next(1, 300) : _random.Next(1, 20), _sectors - first);
            _operation++;
            switch (_random.Next(18))
            {
                case < 10:
                    Expect(first, count, sector => [Stamp(_operation, sector)]);
                    image.Write(first * (long)Sector, Contents(_operation, first, count));
                    break;
                case < 13:
                    Expect(first, count, sector => [.. _now[sector].Append(0UL).Distinct()]);
                    image.Discard(first * (long)Sector, count * (long)Sector);
                    break;
                case < 16:
                    Expect(first, count, _ => [0]);
                    image.WriteZeroes(first * (long)Sector, count * (long)Sector);
                    break;
                default:
                    image.Flush();
                    Flushed();
                    break;
            }
        }

        private void Expect(int first, int count, Func<int, ulong[]> contents)
        {
            for (int sector = first; sector < first + count; sector++)
            {
                _now[sector] = contents(sector);
                _found[sector] = [.. _found[sector].Union(_now[sector])];
                _changed.Add(sector);
            }
        }

        private void Flushed()
        {
            foreach (int sector in _changed)
            {
                _found[sector] = _now[sector];
            }

            _changed.Clear();
        }

        /// <summary>The power goes here in each way in which it can: between two writes, in the middle of the next one, and with the writes since the last flush in any order.</summary>
        private void CutHere()
        {
            Assert.True(_file.Pending == 0 || _file.Pending == _pending + 1, "a prefix was left out");
            _pending = _file.Pending;
            _prefixes++;
            VerifyPrefix(_file.CutClean());
            VerifyPrefix(_file.CutReordered(_random));
            if (_file.Next is not null)
            {
                VerifyPrefix(_file.CutTorn(_random));
            }
        }

        private void VerifyPrefix(MemoryImageFile found)
        {
            if (++_cuts % JudgedPrefixes == 0)
            {
                Verify(found);
                return;
            }

            Qcow2Image image = Open(found);
            AssertMayBeFound(ReadAll(image), "here");
            int target = _random.Next(_sectors);
            byte[] data = Contents(ulong.MaxValue >> 32, target, 1);
            image.Write(target * (long)Sector, data);
            image.Release();
            image = Open(found);
            byte[] read = new byte[Sector];
            image.Read(target * (long)Sector, read);
            DiskModel.AssertEqual(data, read, target * Sector);
            image.Release();
        }

        private void PerhapsCut()
        {
            if (_random.Next(6) != 0 || _cuts >= CutsPerSeed)
            {
                return;
            }

            _cuts++;
            MemoryImageFile found = _file.Cut(_random);
            if (_random.Next(3) == 0)
            {
                found = CutRepair(found);
            }

            if (_cuts % RepairedByQemu == 0)
            {
                VerifyRepairByQemu(found);
            }

            Verify(found);
        }

        /// <summary>The power goes a second time while the image is repaired or written to again.</summary>
        private MemoryImageFile CutRepair(MemoryImageFile found)
        {
            PowerCutFile file = new(found);
            int moments = _random.Next(6);
            List<MemoryImageFile> cuts = [];
            file.Moment = () =>
            {
                if (moments-- == 0)
                {
                    cuts.Add(file.Cut(_random));
                }
            };
            Open(file).Release();
            return cuts.SingleOrDefault(found);
        }

        private void Verify(MemoryImageFile found)
        {
            Qcow2Image image = Open(found);
            byte[] all = ReadAll(image);
            AssertMayBeFound(all, "here");

            // It can be used again, and what is written now harms nothing.
            int target = _random.Next(_sectors);
            byte[] data = Contents(ulong.MaxValue >> 32, target, 1);
            image.Write(target * (long)Sector, data);
            data.CopyTo(all, target * Sector);
            image.Release();
            found.SaveTo(_folder["image.qcow2"]);
            Qemu.AssertClean(_folder["image.qcow2"]);
            byte[] read = Qemu.Read(_folder["image.qcow2"]);
            DiskModel.AssertEqual(all, read, 0);
            DiskModel.AssertEqual(data, read.AsSpan(target * Sector, Sector), target * Sector);
        }

        /// <summary>What the cut has left is an image for others as well: QEMU repairs it, and reads what may be found.</summary>
        private void VerifyRepairByQemu(MemoryImageFile found)
        {
            string left = _folder["left.qcow2"];
            found.SaveTo(left);
            Qemu.Img("check", "-q", "-f", "qcow2", "-r", "all", left);
            AssertMayBeFound(Qemu.Read(left), "by QEMU after its repair");
            File.Delete(left);
        }

        private void AssertMayBeFound(byte[] all, string reader)
        {
            for (int sector = 0; sector < _sectors; sector++)
            {
                ulong stamp = StampOf(all, sector);
                if (!_found[sector].Contains(stamp))
                {
                    Assert.Fail(string.Create(
                        CultureInfo.InvariantCulture,
                        $"cut {_cuts}, operation {_operation}: sector {sector} is {stamp:x} as read {reader}, and may be {string.Join(' ', _found[sector].Select(static each => each.ToString("x", CultureInfo.InvariantCulture)))}"));
                }
            }
        }

        private Qcow2Image Open(IImageFile file) =>
            Qcow2Image.Open(file, Qcow2Header.Read(file), _hasBacking ? new RawLayer(_base) : null, cacheBytes: 32 << 10);

        private byte[] ReadAll(Qcow2Image image)
        {
            byte[] all = new byte[_sectors * Sector];
            image.Read(0, all);
            return all;
        }

        private static ulong Stamp(ulong operation, int sector) => (operation << 20) | (uint)(sector + 1);

        private static byte[] Contents(ulong operation, int first, int count)
        {
            byte[] data = new byte[count * Sector];
            Span<ulong> words = MemoryMarshal.Cast<byte, ulong>(data.AsSpan());
            for (int word = 0; word < words.Length; word++)
            {
                words[word] = Stamp(operation, first + word / (Sector / sizeof(ulong)));
            }

            return data;
        }

        private ulong StampOf(byte[] all, int sector)
        {
            ReadOnlySpan<ulong> words = MemoryMarshal.Cast<byte, ulong>(all.AsSpan(sector * Sector, Sector));
            if (words.ContainsAnyExcept(words[0]))
            {
                Assert.Fail(string.Create(CultureInfo.InvariantCulture, $"seed {_seed}: sector {sector} is a mixture"));
            }

            return words[0];
        }
    }
}
