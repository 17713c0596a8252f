using System.Buffers.Binary;
using System.Globalization;
using Unikraft.Platform.Kvm.Devices.Virtio;
using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Kvm.Tests.Devices.Virtio;

/// <summary>A cut of a disk that has requests of every kind under way, at any moment of them.</summary>
public sealed class CutTests
{
    private const int Seeds = 150;
    private const int BeforeTheCut = 13;
    private const int DuringTheCut = 3;
    private const int SectorsEach = 8;
    private const byte NotDone = 0xff;

    private enum Kind : uint
    {
        Read = 0,
        Write = 1,
        Flush = 4,
        Discard = 11,
        WriteZeroes = 13,
    }

    [Fact]
    public void Requests_of_every_kind_are_done_exactly_once_in_each_lineage()
    {
        // What a request that ends sets off is done where it ends, and not handed to the test runner.
        SynchronizationContext? context = SynchronizationContext.Current;
        SynchronizationContext.SetSynchronizationContext(null);
        try
        {
            CutAtAnyMoment();
        }
        finally
        {
            SynchronizationContext.SetSynchronizationContext(context);
        }
    }

    private static void CutAtAnyMoment()
    {
        HashSet<(Kind, bool)> met = [];
        for (int seed = 0; seed < Seeds; seed++)
        {
            Random random = new(seed);
            byte[] contents = new byte[64 << 10];
            random.NextBytes(contents);
            using Side source = new([.. contents]);
            source.Driver.Start(TestDriver.Version1 | TestDriver.FlushFeature | (1UL << 28));
            List<Request> requests = [];
            for (int number = 0; number < BeforeTheCut; number++)
            {
                requests.Add(source.Begin(random, number));
                source.GoOn(random, steps: random.Next(3));
            }

            Task held = source.Device.HoldAsync();
            for (int number = 0; number < DuringTheCut; number++)
            {
                requests.Add(source.Begin(random, BeforeTheCut + number));
            }

            while (!held.IsCompleted)
            {
                source.GoOn(random, steps: 1);
            }

            met.UnionWith(requests.Select(request => (request.Kind, source.Driver.Memory.Read<byte>(request.Status) == NotDone)));
            using Side clone = source.Copy();
            source.Device.Release();
            foreach (Side side in (Side[])[source, clone])
            {
                while (!side.Device.WhenQuietAsync().IsCompleted)
                {
                    side.GoOn(random, steps: 1);
                }

                AssertAllDoneOnce(side, requests, contents, string.Create(CultureInfo.InvariantCulture, $"seed {seed}, {(side == source ? "source" : "clone")}"));
            }
        }

        // Each kind was met before and after it was done.
        Assert.Equal(2 * Enum.GetValues<Kind>().Length, met.Count);
    }

    private static void AssertAllDoneOnce(Side side, List<Request> requests, byte[] contents, string where)
    {
        Task disposed = side.Device.DisposeAsync().AsTask();
        Assert.True(disposed.IsCompletedSuccessfully, where);
        Assert.True(
            requests.Select(static request => request.Operation).Order().SequenceEqual(side.Done.Order()),
            $"{where}: {string.Join(", ", side.Done.Order())}");
        Assert.Equal(requests.Count, side.Driver.Memory.Read<ushort>(TestDriver.Used + 2));
        Assert.Equal(
            requests.Select(static request => request.Head).Order(),
            Enumerable.Range(0, requests.Count).Select(element => side.Driver.Memory.Read<int>(TestDriver.Used + 4 + 8 * element)).Order());
        foreach (Request request in requests)
        {
            Assert.Equal(0, side.Driver.Memory.Read<byte>(request.Status));
            int offset = request.Number * SectorsEach * 512;
            ReadOnlySpan<byte> before = contents.AsSpan(offset, SectorsEach * 512);
            ReadOnlySpan<byte> now = side.Bytes.AsSpan(offset, SectorsEach * 512);
            Assert.True(request.Kind switch
            {
                Kind.Read => now.SequenceEqual(before) && side.Driver.Memory.Read(request.Buffer, now.Length).SequenceEqual(before),
                Kind.Flush => now.SequenceEqual(before),
                Kind.Write => now.SequenceEqual(request.Data),
                _ => !now.ContainsAnyExcept((byte)0),
            });
        }
    }

    /// <summary>A request, which has a place of the disk to itself.</summary>
    private sealed record Request(int Number, Kind Kind, int Head, long Status, long Buffer, byte[] Data)
    {
        internal (BlockOperation, long) Operation => Kind switch
        {
            Kind.Read => (BlockOperation.Read, Offset),
            Kind.Write => (BlockOperation.Write, Offset),
            Kind.Discard => (BlockOperation.Discard, Offset),
            Kind.WriteZeroes => (BlockOperation.WriteZeroes, Offset),
            _ => (BlockOperation.Flush, 0),
        };

        private long Offset => Number * SectorsEach * 512L;
    }

    /// <summary>A driver, its device, and a disk whose requests end when they are told to. All of it happens on one thread.</summary>
    private sealed class Side : IDisposable
    {
        private readonly Queue<IThreadPoolWorkItem> _turns = new();
        private readonly List<TaskCompletionSource> _underWay = [];

        internal Side(byte[] bytes)
        {
            Bytes = bytes;
            FaultInjectingBlockDevice disk = new(new MemoryBlockDevice(bytes))
            {
                Delay = _ =>
                {
                    // What follows is done by whoever ends it.
                    TaskCompletionSource end = new();
                    _underWay.Add(end);
                    return end.Task;
                },
                Fault = (operation, offset, _) =>
                {
                    Done.Add((operation, offset));
                    return null;
                },
            };
            Device = new VirtioBlock(Driver.Memory, disk, "disk", failed: error => Assert.Fail(error.ToString()), Driver.Interrupt) { Schedule = _turns.Enqueue };
            Driver.Device = Device;
        }

        internal TestDriver Driver { get; } = new();

        internal VirtioBlock Device { get; }

        internal byte[] Bytes { get; }

        /// <summary>What the disk has done, also before a cut.</summary>
        internal List<(BlockOperation, long)> Done { get; private init; } = [];

        public void Dispose()
        {
            // Nothing of it happens any more, for its thread is that of the test.
            Driver.Dispose();
        }

        internal Request Begin(Random random, int number)
        {
            Kind kind = Enum.GetValues<Kind>()[random.Next(Enum.GetValues<Kind>().Length)];
            byte[] data = new byte[kind is Kind.Discard or Kind.WriteZeroes ? 16 : kind == Kind.Flush ? 0 : SectorsEach * 512];
            if (kind == Kind.Write)
            {
                random.NextBytes(data);
            }
            else if (data.Length == 16)
            {
                BinaryPrimitives.WriteInt64LittleEndian(data, number * SectorsEach);
                BinaryPrimitives.WriteInt32LittleEndian(data.AsSpan(8), SectorsEach);
            }

            ushort index = Driver.Memory.Read<ushort>(TestDriver.Available + 2);
            (long status, long buffer) = Driver.Begin((uint)kind, number * SectorsEach, data, isRead: kind == Kind.Read, pieces: random.Next(1, 4), isIndirect: true);
            return new Request(number, kind, Driver.Memory.Read<ushort>(TestDriver.Available + 4 + 2 * (index % TestDriver.QueueSize)), status, buffer, data);
        }

        /// <summary>Lets the device have turns, and ends requests in any order.</summary>
        internal void GoOn(Random random, int steps)
        {
            for (; steps > 0; steps--)
            {
                if (_turns.Count > 0 && (_underWay.Count == 0 || random.Next(2) == 0))
                {
                    _turns.Dequeue().Execute();
                }
                else if (_underWay.Count > 0)
                {
                    TaskCompletionSource end = _underWay[random.Next(_underWay.Count)];
                    _underWay.Remove(end);
                    end.SetResult();
                }
            }
        }

        /// <summary>What a clone is at this moment, in which requests are held back.</summary>
        internal Side Copy()
        {
            Side copy = new([.. Bytes]) { Done = [.. Done] };
            copy.Driver.Memory.Write(0, Driver.Memory.Read(0, (int)TestDriver.MemorySize));
            copy.Device.Restore(Device.Save());
            return copy;
        }
    }
}
