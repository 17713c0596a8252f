using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Kvm.Boot;
using Unikraft.Platform.Kvm.Interop;
using Unikraft.Platform.Kvm.Machines;
using Unikraft.Platform.Kvm.Tests.Testing;
using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Kvm.Tests.Machines;

/// <summary>How fast the time stamp counter of a guest runs that comes from another host.</summary>
public sealed class HostTscTests : KvmTest
{
    private const int TscKhzOffset = 56;

    /// <remarks>KVM tolerates 250 millionths, which are 500 kHz of 2 GHz.</remarks>
    [Theory]
    [InlineData(2_000_000, 2_000_000, null)]
    [InlineData(2_000_500, 2_000_000, null)]
    [InlineData(1_999_500, 2_000_000, null)]
    [InlineData(2_000_501, 2_000_000, 2_000_501)]
    [InlineData(1_999_499, 2_000_000, 1_999_499)]
    [InlineData(int.MaxValue, 2_000_000, int.MaxValue)]
    [InlineData(0, 2_000_000, null)]
    [InlineData(2_000_000, 0, null)]
    public void A_counter_is_scaled_when_it_would_run_at_another_frequency(int guest, int host, int? scaled)
    {
        Assert.Equal(scaled, new HostTsc(host, CanScale: true).ScaleFor(guest, "file"));
        HostTsc steady = new(host, CanScale: false);
        if (scaled is null)
        {
            Assert.Null(steady.ScaleFor(guest, "file"));
            return;
        }

        IncompatibleMachineException error = Assert.Throws<IncompatibleMachineException>(() => steady.ScaleFor(guest, "file"));
        Assert.Equal("file", error.Path);
        foreach (string message in (string[])[error.Message, Assert.Throws<HypervisorException>(() => steady.ScaleFor(guest, path: null)).Message])
        {
            Assert.Contains($"{guest} kHz", message, StringComparison.Ordinal);
            Assert.Contains($"{host} kHz", message, StringComparison.Ordinal);
        }
    }

    [ContractFact]
    public async Task A_flat_guest_finds_the_frequency_of_the_host_that_it_is_on()
    {
        const int Elsewhere = 1_234_567;
        await using TestMachine source = await BootAsync("counter", "--period-ms", "0");
        using KvmDevice device = KvmDevice.Open();
        Assert.Equal((ulong)device.TscKhz, source.Memory.Read<ulong>(FlatGuestLayout.InfoAddress + TscKhzOffset));
        using IMachineSnapshot snapshot = await source.CaptureAsync();
        await using KvmHypervisor elsewhere = NewHypervisor(tsc: new HostTsc(Elsewhere, CanScale: false));
        RecordingMonitor monitor = new();
        await using TestMachine clone = new(await elsewhere.RestoreAsync(snapshot, Guid.NewGuid(), monitor).Guarded(), monitor);
        Assert.Equal((ulong)Elsewhere, clone.Memory.Read<ulong>(FlatGuestLayout.InfoAddress + TscKhzOffset));
        await clone.Machine.StartAsync();
        await clone.TickAsync();

        // And back.
        using IMachineSnapshot again = await clone.CaptureAsync();
        await using TestMachine back = await RestoreAsync(again);
        Assert.Equal((ulong)device.TscKhz, back.Memory.Read<ulong>(FlatGuestLayout.InfoAddress + TscKhzOffset));
    }
}
