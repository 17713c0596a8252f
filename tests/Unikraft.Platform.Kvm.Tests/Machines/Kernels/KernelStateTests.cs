using System.Buffers.Binary;
using Unikraft.Platform.Kvm.Boot.Kernels;
using Unikraft.Platform.Kvm.Devices;
using Unikraft.Platform.Kvm.Devices.Virtio;
using Unikraft.Platform.Kvm.Interop;
using Unikraft.Platform.Kvm.Machines.Kernels;

namespace Unikraft.Platform.Kvm.Tests.Machines.Kernels;

/// <summary>The devices of a kernel in a state file.</summary>
public sealed class KernelStateTests
{
    private const int EntropyOffset = 96;

    [Fact]
    public void What_is_written_is_read_again()
    {
        byte[] written = Write();
        KernelState read = KernelState.Read(written)!;
        byte[] again = new byte[KernelState.Size];
        read.Write(again);
        Assert.Equal(written, again);
        Assert.Equal(1832, written.Length);
        Assert.Equal(new byte[] { 9, 8, 7 }, read.Generation.Received.ToArray());
        Assert.Equal((2u, (byte)0x32), (read.Timer.Flags, read.ClockIndex));
        Assert.Equal("hello"u8.ToArray(), read.Serial.Received.ToArray());
        Assert.Equal((0x1_2345_6000UL, (ushort)7), (read.Entropy.Queues[0].Settings.Descriptors, read.Entropy.Queues[0].NextAvailable));
    }

    [Theory]
    [InlineData(20, 2)]
    [InlineData(24, 0x100)]
    [InlineData(32 + 8, 4)]
    [InlineData(32 + 12, 17)]
    [InlineData(64 + 8, 4)]
    [InlineData(64 + 12, -1)]
    [InlineData(EntropyOffset + 8, 0x10)]
    [InlineData(EntropyOffset, 1)]
    [InlineData(EntropyOffset + 24, 4)]
    [InlineData(EntropyOffset + 60, 2)]
    [InlineData(EntropyOffset + 64 + 112, 1)]
    [InlineData(28, 0x80)]
    public void What_cannot_be_is_refused(int offset, int value)
    {
        byte[] written = Write();
        BinaryPrimitives.WriteInt32LittleEndian(written.AsSpan(offset), value);
        Assert.Null(KernelState.Read(written));
    }

    private static byte[] Write()
    {
        KernelState state = new()
        {
            Chips = [.. Enumerable.Range(0, KernelState.InterruptControllers).Select(static i => new KvmIrqchip { ChipId = (uint)i })],
            Timer = new KvmPitState2 { Flags = 2 },
            ClockIndex = 0x32,
            Clock = 12345,
            TakenAt = new DateTimeOffset(2026, 1, 1, 0, 0, 0, TimeSpan.Zero),
            TscKhz = 2_000_000,
            Serial = SerialPortState.Initial with { Divisor = 1, HasFifos = true, Received = "hello"u8.ToArray() },
            Generation = SerialPortState.Initial with { InterruptEnable = 1, Received = new byte[] { 9, 8, 7 } },
            Entropy = new VirtioDeviceState
            {
                Status = 15,
                DriverFeatures = 1UL << 32,
                InterruptStatus = 1,
                Queues =
                [
                    new VirtioDeviceState.QueueState(
                        new VirtqueueSettings { Size = 64, Descriptors = 0x1_2345_6000, Available = 0x1_2345_7000, Used = 0x1_2345_8000 },
                        IsReady: true,
                        NextAvailable: 7,
                        NextUsed: 7),
                ],
            },
            PowerEvents = 2,
            Rule = RunningRule.FirstOutput,
        };
        byte[] written = new byte[KernelState.Size];
        state.Write(written);
        return written;
    }
}
