using Unikraft.Platform.Kvm.Devices.Virtio;
using Unikraft.Platform.Kvm.Memory;
using Unikraft.Platform.Kvm.Tests.Testing;

namespace Unikraft.Platform.Kvm.Tests.Devices.Virtio;

public sealed class VirtioEntropyTests : IAsyncLifetime
{
    private readonly TestDriver _driver = new();
    private readonly VirtioEntropy _device;

    public VirtioEntropyTests()
    {
        _device = new VirtioEntropy(_driver.Memory, _driver.Interrupt);
        _driver.Device = _device;
    }

    public Task InitializeAsync() => Task.CompletedTask;

    public async Task DisposeAsync()
    {
        await _device.DisposeAsync();
        _driver.Dispose();
    }

    [Fact]
    public void It_says_what_it_is()
    {
        Assert.Equal(4u, _driver.Read(0x008));
        Assert.Equal(1u << 28, _driver.Read(0x010));
    }

    [Theory]
    [InlineData(64, 64)]
    [InlineData(4096, 4096)]
    [InlineData(5000, 4096)]
    public async Task A_request_is_filled_with_bytes_that_come_once(int wanted, int given)
    {
        _driver.Start();
        HashSet<string> seen = new(StringComparer.Ordinal);
        for (int i = 0; i < 3; i++)
        {
            long buffer = _driver.Allocate(wanted);
            int head = _driver.Submit(isIndirect: i == 1, (buffer, wanted / 2, true), (buffer + wanted / 2, wanted - wanted / 2, true));
            Assert.Equal((head, given), await _driver.NextAsync());
            byte[] bytes = _driver.Memory.Read(buffer, wanted).ToArray();
            Assert.True(seen.Add(Convert.ToHexString(bytes)));
            Assert.All(bytes[..given].Chunk(16), static part => Assert.Contains(part, static one => one != 0));
            Assert.All(bytes[given..], static one => Assert.Equal(0, one));
        }
    }

    /// <summary>What its driver asked for before the cut and did not get, each clone gets for itself.</summary>
    [Fact]
    public async Task A_request_that_waits_in_a_snapshot_is_filled_differently_in_source_and_clone()
    {
        const int Length = 32;
        _driver.Start();
        await _device.HoldAsync().Guarded();
        long buffer = _driver.Allocate(Length);
        _driver.Submit(isIndirect: false, (buffer, Length, true));
        VirtioDeviceState state = _device.Save();
        Assert.True(VirtioEntropy.CouldBe(state));
        using TestDriver other = _driver.Fork();
        await using VirtioEntropy clone = new(other.Memory, other.Interrupt);
        other.Device = clone;
        byte[] saved = new byte[VirtioDeviceState.Size];
        state.Write(saved);
        clone.Restore(VirtioDeviceState.Read(saved)!);
        _device.Release();
        _ = await other.NextAsync();
        _ = await _driver.NextAsync();
        byte[] ofClone = other.Memory.Read(buffer, Length).ToArray();
        Assert.NotEqual(new byte[Length], ofClone);
        Assert.NotEqual(new byte[Length], _driver.Memory.Read(buffer, Length).ToArray());
        Assert.NotEqual(ofClone, _driver.Memory.Read(buffer, Length).ToArray());
    }

    [Fact]
    public async Task A_request_without_room_gets_nothing()
    {
        _driver.Start();
        int head = _driver.Submit(isIndirect: false, (_driver.Allocate(16), 16, false));
        Assert.Equal((head, 0), await _driver.NextAsync());
    }
}
