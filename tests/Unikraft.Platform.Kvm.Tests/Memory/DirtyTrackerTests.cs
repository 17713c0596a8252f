using Unikraft.Platform.Kvm.Interop;
using Unikraft.Platform.Kvm.Memory;
using Unikraft.Platform.Kvm.Tests.Testing;
using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Kvm.Tests.Memory;

/// <summary>The tracker needs a KVM machine, but no guest: what the host writes is tracked in the same way.</summary>
[RequiresKvm]
public sealed class DirtyTrackerTests
{
    private const long Size = 37L << 20;

    [ContractFact]
    public void Each_change_is_taken_once()
    {
        using Setup setup = new();
        setup.Memory.Write(0x1000, 1);
        setup.Memory.Write(0x5000, 5);

        Assert.Equal([(1, 1), (5, 1)], setup.Take());
        setup.Tracker.Commit();
        setup.Memory.Write(0x5000, 6);
        Assert.Equal([(5, 1)], setup.Take());
        setup.Tracker.Commit();
        Assert.Empty(setup.Take());
    }

    [ContractFact]
    public void What_a_failed_snapshot_took_is_taken_again()
    {
        using Setup setup = new();
        setup.Memory.Write(0x1000, 1);
        setup.Take();
        setup.Memory.Write(0x2000, 2);
        setup.Take();
        setup.Tracker.Rollback();
        setup.Memory.Write(0x3000, 3);

        Assert.Equal([(1, 3)], setup.Take());
        setup.Tracker.Rollback();
        setup.Tracker.Rollback();
        Assert.Equal([(1, 3)], setup.Take());
        setup.Tracker.Commit();
        setup.Tracker.Rollback();
        Assert.Empty(setup.Take());
    }

    [ContractFact]
    public void The_residue_is_taken_too()
    {
        using Setup setup = new();
        setup.Memory.Write(Size - 1, (byte)1);
        using LayerWriter writer = new(setup.Memory.Pages);
        using StagingBuffer buffer = new(4);
        setup.Tracker.StageResidue(writer, buffer);
        setup.Tracker.FlushResidue(writer);
        using PageMap map = writer.Seal(null);

        PageExtent extent = Assert.Single(map.Extents.ToArray());
        Assert.Equal(setup.Memory.Pages - 1, extent.Start);
    }

    private sealed class Setup : IDisposable
    {
        private readonly KvmDevice _device = KvmDevice.Open();
        private readonly KvmVm _vm;

        internal Setup()
        {
            Memory = new GuestMemory(Size);
            _vm = _device.CreateVm();
            _vm.SetMemory(Memory);
            Tracker = new DirtyTracker(_vm, Memory);
        }

        internal GuestMemory Memory { get; }

        internal DirtyTracker Tracker { get; }

        public void Dispose()
        {
            _vm.Dispose();
            Memory.Dispose();
            _device.Dispose();
        }

        internal IEnumerable<(int Start, int Length)> Take()
        {
            using LayerWriter writer = new(Memory.Pages);
            Tracker.TakeRound(writer, CancellationToken.None);
            using PageMap map = writer.Seal(null);
            return [.. map.Extents.ToArray().Select(extent => (extent.Start, extent.Length))];
        }
    }
}
