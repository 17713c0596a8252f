using System.Globalization;
using System.Runtime.InteropServices;
using Unikraft.Platform.TestKit;
using Unikraft.Platform.Volumes.Qcow2;
using Unikraft.Platform.Volumes.Tests.Testing;

namespace Unikraft.Platform.Volumes.Tests.Qcow2;

/// <summary>
/// More than 2,000 power cuts, each with some of the unflushed sectors on the disk and some not: the image opens, holds all that was flushed,
/// works, and QEMU finds nothing wrong with it.
/// </summary>
[RequiresQemu]
public sealed class PowerCutTests : IDisposable
{
    private const int Sector = 512;
    private const int CutsPerSeed = 45;
    private const int SeedsPerGroup = 6;
    private const ulong BackingOperation = 1;

    private readonly TestFolder _folder = new();

    public static TheoryData<int> Groups => [.. Enumerable.Range(0, 8)];

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
        private readonly TestFolder _folder;
        private readonly bool _hasBacking;
        private readonly int _sectors;
        private readonly PowerCutFile _file;
        private readonly MemoryImageFile _base;
        private readonly Dictionary<int, HashSet<ulong>> _since = [];
        private readonly ulong[] _flushed;
        private int _cuts;
        private ulong _operation = BackingOperation;

        internal Scenario(int seed, TestFolder folder)
        {
            _seed = seed;
            _random = new Random(seed);
            _folder = folder;
            _hasBacking = _random.Next(2) == 0;
            _sectors = _random.Next(200, 4000);
            _flushed = new ulong[_sectors];
            _base = new MemoryImageFile("/memory/base.raw") { IsReadOnly = true };
            if (_hasBacking)
            {
                for (int sector = 0; sector < _sectors; sector++)
                {
                    _flushed[sector] = Stamp(BackingOperation, sector);
                    _base.Write(sector * (long)Sector, Contents(BackingOperation, sector, 1));
                }

                _base.SaveTo(folder["base.raw"]);
            }

            MemoryImageFile empty = new(folder["image.qcow2"]);
            Qcow2Image.Create(empty, _sectors * (long)Sector, _random.Next(12, 15), _hasBacking ? ("base.raw", "raw") : null, isDirty: _random.Next(2) == 0);
            _file = new PowerCutFile(empty) { Moment = PerhapsCut };
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
                    Flushed(image);
                }
            }
        }

        private void Step(Qcow2Image image)
        {
            int first = _random.Next(_sectors);
            int count = Math.Min(_random.Next(4) == 0 ? _random.Next(1, 300) : _random.Next(1, 20), _sectors - first);
            _operation++;
            switch (_random.Next(18))
            {
                case < 10:
                    Expect(first, count, sector => Stamp(_operation, sector));
                    image.Write(first * (long)Sector, Contents(_operation, first, count));
                    break;
                case < 13:
                    Expect(first, count, _ => 0);
                    image.Discard(first * (long)Sector, count * (long)Sector);
                    break;
                case < 16:
                    Expect(first, count, _ => 0);
                    image.WriteZeroes(first * (long)Sector, count * (long)Sector);
                    break;
                default:
                    image.Flush();
                    Flushed(image);
                    break;
            }
        }

        private void Expect(int first, int count, Func<int, ulong> stamp)
        {
            for (int sector = first; sector < first + count; sector++)
            {
                if (!_since.TryGetValue(sector, out HashSet<ulong>? possible))
                {
                    _since.Add(sector, possible = []);
                }

                possible.Add(stamp(sector));
            }
        }

        private void Flushed(Qcow2Image image)
        {
            byte[] now = ReadAll(image);
            foreach (int sector in _since.Keys)
            {
                _flushed[sector] = StampOf(now, sector);
            }

            _since.Clear();
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
            for (int sector = 0; sector < _sectors; sector++)
            {
                ulong stamp = StampOf(all, sector);
                Assert.True(
                    stamp == _flushed[sector] || (_since.TryGetValue(sector, out HashSet<ulong>? possible) && possible.Contains(stamp)),
                    string.Create(
                        CultureInfo.InvariantCulture,
                        $"cut {_cuts}, operation {_operation}: sector {sector} is {stamp:x}, and {_flushed[sector]:x} was flushed"));
            }

            // It can be used again, and what is written now harms nothing.
            int target = _random.Next(_sectors);
            byte[] data = Contents(ulong.MaxValue >> 32, target, 1);
            image.Write(target * (long)Sector, data);
            data.CopyTo(all, target * Sector);
            DiskModel.AssertEqual(all, ReadAll(image), 0);
            image.Release();
            found.SaveTo(_folder["image.qcow2"]);
            Qemu.AssertClean(_folder["image.qcow2"]);
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
            Assert.True(!words.ContainsAnyExcept(words[0]), string.Create(CultureInfo.InvariantCulture, $"seed {_seed}: sector {sector} is a mixture"));
            return words[0];
        }
    }
}
