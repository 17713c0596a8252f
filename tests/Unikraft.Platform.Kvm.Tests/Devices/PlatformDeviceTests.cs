using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Kvm.Boot;
using Unikraft.Platform.Kvm.Devices;
using Unikraft.Platform.Kvm.Tests.Boot;
using Unikraft.Platform.Kvm.Tests.Testing;

namespace Unikraft.Platform.Kvm.Tests.Devices;

public sealed class PlatformDeviceTests : IDisposable
{
    private const int BadAddress = -14;
    private const int Busy = -16;
    private const int Invalid = -22;
    private const int NotImplemented = -38;
    private const ulong Data = ElfBuilder.Base + 0x1000;
    private const ulong Code = ElfBuilder.Base;

    private readonly FakeMachine _machine = new();

    public void Dispose() => _machine.Dispose();

    [Theory]
    [InlineData(0, 4, 0x44504B55)]
    [InlineData(4, 4, 0x00010002)]
    [InlineData(8, 4, 0xFFFFFFFF)]
    [InlineData(0xFFC, 4, 0xFFFFFFFF)]
    [InlineData(1, 4, 0xFFFFFFFF)]
    [InlineData(0, 1, 0xFF)]
    [InlineData(0, 2, 0xFFFF)]
    [InlineData(0, 8, ulong.MaxValue)]
    [InlineData(4, 8, ulong.MaxValue)]
    public void Registers_read_as_the_abi_says(ulong offset, int length, ulong expected)
    {
        byte[] data = new byte[8];
        _machine.Platform.Read(new FakeMachine.Initiator(0), offset, data.AsSpan(0, length));
        Assert.Equal(expected, BitConverter.ToUInt64(data));
    }

    [Theory]
    [InlineData(8, 1)]
    [InlineData(8, 2)]
    [InlineData(8, 8)]
    [InlineData(4, 8)]
    [InlineData(0, 4)]
    [InlineData(12, 4)]
    [InlineData(9, 4)]
    public void Only_a_whole_write_to_the_doorbell_is_a_call(ulong offset, int length)
    {
        _machine.Memory.Write(FlatGuestLayout.CallBlock(0), (uint)GuestCall.PowerOff);
        _machine.Platform.Write(new FakeMachine.Initiator(0), offset, new byte[length]);
        Assert.Empty(_machine.Exits);
    }

    [Fact]
    public void Main_is_reached_once_and_not_while_shutting_down()
    {
        Assert.Equal(0, _machine.Call((uint)GuestCall.InitLevel, 127, 1).Status);
        Assert.False(_machine.Platform.HasReachedMain);
        Assert.Equal(0, _machine.Call((uint)GuestCall.InitLevel, 126).Status);
        Assert.False(_machine.Platform.HasReachedMain);
        Assert.Equal(0, _machine.Call((uint)GuestCall.InitLevel, 127).Status);
        Assert.True(_machine.Platform.HasReachedMain);
        _machine.Call((uint)GuestCall.InitLevel, 1);
        _machine.Call((uint)GuestCall.InitLevel, 127, vcpu: 1);
        Assert.Equal(1, _machine.Monitor.TimesMainReached);
    }

    [Theory]
    [InlineData(128, 0)]
    [InlineData(127, 2)]
    [InlineData(ulong.MaxValue, 0)]
    [InlineData(0, ulong.MaxValue)]
    [InlineData(1UL << 32, 0)]
    public void A_level_out_of_range_changes_nothing(ulong level, ulong shuttingDown)
    {
        _machine.Call((uint)GuestCall.InitLevel, 5);
        Assert.Equal(Invalid, _machine.Call((uint)GuestCall.InitLevel, level, shuttingDown).Status);
        Assert.Equal(new StopCode(StopCodeReason.Ok, 0, 5), _machine.Platform.MakeStopCode(StopCodeReason.Ok, 0));
        Assert.False(_machine.Platform.HasReachedMain);
    }

    [Theory]
    [InlineData(0, 0)]
    [InlineData(255, 255)]
    [InlineData(4, 12)]
    public void A_stop_carries_code_and_exit_code(ulong reason, ulong errno)
    {
        _machine.Call((uint)GuestCall.InitLevel, 77, 1);
        Assert.Equal(0, _machine.Call((uint)GuestCall.ExitCode, 0xFFFF_FFFF_FFFF_FFFE).Status);
        _machine.Call((uint)GuestCall.Stop, reason, errno);
        Assert.Equal(
            new MachineExit.PoweredOff(-2, new StopCode((StopCodeReason)reason, (int)errno, 77, isShuttingDown: true)),
            Assert.Single(_machine.Exits));
    }

    [Theory]
    [InlineData(256, 0)]
    [InlineData(0, 256)]
    [InlineData(ulong.MaxValue, ulong.MaxValue)]
    [InlineData(1UL << 32, 0)]
    public void A_stop_out_of_range_does_not_stop(ulong reason, ulong errno)
    {
        Assert.Equal(Invalid, _machine.Call((uint)GuestCall.Stop, reason, errno).Status);
        Assert.Empty(_machine.Exits);
    }

    [Fact]
    public void Power_off_says_nothing_about_why()
    {
        _machine.Call((uint)GuestCall.PowerOff);
        Assert.Equal(new MachineExit.PoweredOff(null, null), Assert.Single(_machine.Exits));
    }

    [Fact]
    public void Of_a_long_output_the_first_64_KiB_are_taken_and_only_those_need_be_readable()
    {
        ulong heap = (ulong)_machine.Layout.HeapStart;
        _machine.Memory.Fill((long)heap, 1 << 17, 0, static (bytes, _) =>
        {
            bytes.Fill((byte)'x');
            return bytes.Length;
        });

        FakeMachine.CallResult result = _machine.Call((uint)GuestCall.ConsoleWrite, heap, ulong.MaxValue - heap);

        Assert.Equal((0, 64UL << 10), (result.Status, result.First));
        Assert.Equal(new string('x', 64 << 10), _machine.Monitor.Text);
        Assert.Equal(0, _machine.Call((uint)GuestCall.ConsoleWrite, (ulong)FakeMachine.Size - (64 << 10), 1UL << 40).Status);
        Assert.Equal(BadAddress, _machine.Call((uint)GuestCall.ConsoleWrite, (ulong)FakeMachine.Size - (64 << 10) + 1, 1UL << 40).Status);
    }

    [Theory]
    [InlineData((uint)GuestCall.ConsoleWrite)]
    [InlineData((uint)GuestCall.ConsoleRead)]
    [InlineData((uint)GuestCall.Random)]
    public void A_length_of_0_is_valid_at_any_address(uint op)
    {
        foreach (ulong address in new ulong[] { 0, Code, FakeMachine.Size, 1UL << 63, ulong.MaxValue })
        {
            FakeMachine.CallResult result = _machine.Call(op, address, 0);
            Assert.True((result.Status, result.First) == (0, 0), $"0x{address:x}: {result}");
        }

        Assert.Equal("", _machine.Monitor.Text);
    }

    [Theory]
    [InlineData((uint)GuestCall.ConsoleRead)]
    [InlineData((uint)GuestCall.Random)]
    public void Read_only_memory_is_not_written_for_the_guest(uint op)
    {
        Assert.Equal(BadAddress, _machine.Call(op, Code, 8).Status);
        Assert.Equal(BadAddress, _machine.Call(op, FlatGuestLayout.InfoAddress, 8).Status);
        Assert.Equal(BadAddress, _machine.Call(op, FlatGuestLayout.CallBlocksAddress, 8).Status);
        Assert.Equal(BadAddress, _machine.Call(op, (ulong)_machine.Layout.StacksStart, 8).Status);
        Assert.Equal(0, _machine.Call(op, Data, 8).Status);
        Assert.Equal(0, _machine.Call((uint)GuestCall.ConsoleWrite, Code, 2).Status);
    }

    [Fact]
    public async Task Input_is_read_up_to_the_capacity()
    {
        await _machine.Input.WriteAsync("hello"u8.ToArray(), CancellationToken.None);
        Assert.Equal(new FakeMachine.CallResult(0, 3, 0), _machine.Call((uint)GuestCall.ConsoleRead, Data, 3));
        Assert.Equal("hel"u8, _machine.Memory.Read((long)Data, 3));
        Assert.Equal(new FakeMachine.CallResult(0, 2, 0), _machine.Call((uint)GuestCall.ConsoleRead, (ulong)_machine.Layout.HeapStart, ulong.MaxValue));
        Assert.Equal(new FakeMachine.CallResult(0, 0, 0), _machine.Call((uint)GuestCall.ConsoleRead, Data, 8));
        Assert.Equal(BadAddress, _machine.Call((uint)GuestCall.ConsoleRead, Code, 1).Status);
    }

    [Fact]
    public void The_clock_tells_both_times()
    {
        _machine.Time.Advance(TimeSpan.FromSeconds(3));
        Assert.Equal(
            new FakeMachine.CallResult(0, 3_000_000_000, (ulong)(_machine.Time.GetUtcNow() - DateTimeOffset.UnixEpoch).Ticks * 100),
            _machine.Call((uint)GuestCall.Clock));
    }

    [Fact]
    public void Random_bytes_are_random_and_limited()
    {
        Assert.Equal(new FakeMachine.CallResult(0, 4096, 0), _machine.Call((uint)GuestCall.Random, Data, 4096));
        byte[] first = _machine.Memory.Read((long)Data, 4096).ToArray();
        Assert.InRange(first.Distinct().Count(), 200, 256);
        _machine.Call((uint)GuestCall.Random, Data, 4096);
        Assert.NotEqual(first, _machine.Memory.Read((long)Data, 4096).ToArray());
        Assert.Equal(Invalid, _machine.Call((uint)GuestCall.Random, Data, 4097).Status);
        Assert.Equal(Invalid, _machine.Call((uint)GuestCall.Random, Data, ulong.MaxValue).Status);
    }

    [Fact]
    public void Vcpus_are_woken_and_put_to_sleep()
    {
        Assert.Equal(0, _machine.Call((uint)GuestCall.Wake, 1).Status);
        Assert.Equal(Invalid, _machine.Call((uint)GuestCall.Wake, 2).Status);
        Assert.Equal(Invalid, _machine.Call((uint)GuestCall.Wake, 1UL << 32).Status);
        Assert.Equal([1], _machine.Woken);

        _machine.Call((uint)GuestCall.Wait, 12345, 0xFFFF_FFFF_8000_0001, vcpu: 1);
        Assert.Equal((1, 12345UL, 0x8000_0001u), Assert.Single(_machine.Waits));
        _machine.Platform.FinishWait(1, 0x8000_0000);
        Assert.Equal(0, _machine.Memory.Read<int>(FlatGuestLayout.CallBlock(1) + 4));
        Assert.Equal(0x8000_0000UL, _machine.Memory.Read<ulong>(FlatGuestLayout.CallBlock(1) + 40));
    }

    [Fact]
    public async Task A_guest_asks_for_one_thing_at_a_time()
    {
        Assert.Equal(int.MinValue, _machine.Call((uint)GuestCall.Template, vcpu: 1).Status);
        Assert.Equal((1, GuestCall.Template, 0UL), Assert.Single(_machine.Requests));
        Assert.Equal("template", await _machine.Monitor.ReadRequestAsync());
        Assert.Equal(Busy, _machine.Call((uint)GuestCall.Template).Status);
        Assert.Equal(Busy, _machine.Call((uint)GuestCall.Fork, Data).Status);

        _machine.Platform.FinishRequest(1, GuestCall.Template, 0, RequestAnswer.Refused(16));
        Assert.Equal(Busy, _machine.Memory.Read<int>(FlatGuestLayout.CallBlock(1) + 4));
        _machine.Platform.FinishRequest(1, GuestCall.Template, 0, RequestAnswer.InClone(Guid.NewGuid()));
        Assert.Equal(0, _machine.Memory.Read<int>(FlatGuestLayout.CallBlock(1) + 4));
    }

    [Fact]
    public async Task A_fork_tells_parent_and_child_apart_and_both_the_uuid_of_the_child()
    {
        Guid child = Guid.Parse("00112233-4455-6677-8899-aabbccddeeff");
        byte[] bytes = Convert.FromHexString("00112233445566778899AABBCCDDEEFF");
        const ulong Address = Data + 0x1FF0;
        Assert.Equal(BadAddress, _machine.Call((uint)GuestCall.Fork, Code).Status);
        Assert.Equal(BadAddress, _machine.Call((uint)GuestCall.Fork, Address + 1).Status);
        Assert.Equal(BadAddress, _machine.Call((uint)GuestCall.Fork).Status);
        Assert.Empty(_machine.Requests);
        Assert.Equal(int.MinValue, _machine.Call((uint)GuestCall.Fork, Address).Status);
        Assert.Equal((0, GuestCall.Fork, Address), Assert.Single(_machine.Requests));
        Assert.Equal("fork", await _machine.Monitor.ReadRequestAsync());

        _machine.Platform.FinishRequest(0, GuestCall.Fork, Address, RequestAnswer.Refused(11));
        Assert.Equal(-11, _machine.Memory.Read<int>(FlatGuestLayout.CallBlock(0) + 4));
        Assert.Equal(new byte[16], _machine.Memory.Read((long)Address, 16).ToArray());
        foreach (RequestAnswer answer in new[] { RequestAnswer.InClone(child), RequestAnswer.InParent(child) })
        {
            _machine.Memory.Write((long)Address, new byte[16]);
            _machine.Platform.FinishRequest(0, GuestCall.Fork, Address, answer);
            Assert.Equal(0, _machine.Memory.Read<int>(FlatGuestLayout.CallBlock(0) + 4));
            Assert.Equal(answer.IsClone ? 1UL : 0UL, _machine.Memory.Read<ulong>(FlatGuestLayout.CallBlock(0) + 40));
            Assert.Equal(bytes, _machine.Memory.Read((long)Address, 16).ToArray());
        }
    }

    [Theory]
    [InlineData(13)]
    [InlineData(0x80000000)]
    [InlineData(uint.MaxValue)]
    public void An_unknown_call_says_so(uint op) => Assert.Equal(NotImplemented, _machine.Call(op).Status);

    [Fact]
    public async Task State_is_saved_and_restored_whole()
    {
        _machine.Call((uint)GuestCall.InitLevel, 127);
        _machine.Call((uint)GuestCall.InitLevel, 99, 1);
        _machine.Call((uint)GuestCall.ExitCode, 42);
        _machine.Time.Advance(TimeSpan.FromSeconds(1));
        await _machine.Input.WriteAsync("input"u8.ToArray(), CancellationToken.None);
        PlatformDeviceState state = _machine.Platform.Save();
        Assert.Equal(1_000_000_000UL, state.Monotonic);

        using FakeMachine clone = new();
        clone.Platform.Restore(state);
        Assert.True(clone.Platform.HasReachedMain);
        clone.Call((uint)GuestCall.InitLevel, 127);
        Assert.Equal(0, clone.Monitor.TimesMainReached);
        clone.Call((uint)GuestCall.InitLevel, 99, 1);
        Assert.Equal("input"u8, clone.Input.Save());
        clone.Call((uint)GuestCall.Stop, 1, 2);
        Assert.Equal(new MachineExit.PoweredOff(42, new StopCode(StopCodeReason.Exception, 2, 99, isShuttingDown: true)), Assert.Single(clone.Exits));
    }

    [Fact]
    public async Task Hostile_blocks_do_no_harm()
    {
        const int Rounds = 150_000;
        Random random = new(42);
        ulong[] values =
        [
            0, 1, 2, 7, 8, 127, 128, 255, 256, 4095, 4096, 4097, 65535, 65536, 65537, 0x1000, 0xF_0000, 0xF_C000, 0xF_E000, Code, Code + 0xFFF,
            Data, Data + 0x1FFF, Data + 0x2000, (ulong)_machine.Layout.StacksStart, (ulong)_machine.Layout.StackTop(0),
            (ulong)_machine.Layout.StackTop(1), (ulong)_machine.Layout.HeapStart, FakeMachine.Size - 1, FakeMachine.Size, FakeMachine.Size + 1,
            0x40_0000_0000, 0x80_0000_0000, int.MaxValue, uint.MaxValue, 1UL << 32, long.MaxValue, 1UL << 63, ulong.MaxValue - 4095, ulong.MaxValue,
        ];
        byte[] code = _machine.Memory.Read(0, (int)FlatGuestLayout.CallBlocksAddress).ToArray();
        for (int round = 0; round < Rounds; round++)
        {
            int vcpu = random.Next(FakeMachine.Vcpus);
            uint op = random.Next(20) == 0 ? (uint)random.NextInt64(1L << 32) : (uint)random.Next(14);
            ulong arg0 = Value(random, values);
            ulong arg1 = Value(random, values);
            _machine.Memory.WrittenByHost.Clear();
            if (random.Next(16) == 0)
            {
                // Something to read.
                _machine.Input.Read(new byte[1000]);
                Assert.NotEqual(0, await _machine.Input.WriteAsync(new byte[random.Next(1, 100)], CancellationToken.None).Guarded());
            }

            FakeMachine.CallResult result = _machine.Call(op, arg0, arg1, vcpu);
            Assert.True(
                result.Status is 0 or BadAddress or Invalid or NotImplemented or Busy or int.MinValue,
                $"op {op} (0x{arg0:x}, 0x{arg1:x}) gives {result}");
            for (int from = 0; _machine.Memory.WrittenByHost.NextRun(from, out int start, out int length); from = start + length)
            {
                bool isCallBlock = start == FlatGuestLayout.CallBlocksAddress >> 12 && length == 1;
                Assert.True(
                    isCallBlock || _machine.Layout.IsAccessible((ulong)start << 12, (ulong)length << 12, write: true),
                    $"op {op} (0x{arg0:x}, 0x{arg1:x}) wrote pages {start}+{length}");
            }
        }

        // Nothing below the call blocks has changed; the image's page of code neither.
        Assert.True(code.AsSpan().SequenceEqual(_machine.Memory.Read(0, code.Length)));
        Assert.False(_machine.Memory.Read((long)Code, 0x1000).ContainsAnyExcept((byte)0));
        Assert.NotEmpty(_machine.Exits);
        Assert.NotEmpty(_machine.Waits);
        Assert.NotEmpty(_machine.Requests);
    }

    private static ulong Value(Random random, ulong[] values) => random.Next(4) switch
    {
        0 => (ulong)random.NextInt64(long.MinValue, long.MaxValue),
        1 => (ulong)random.NextInt64(FakeMachine.Size + 4096),
        2 => unchecked(values[random.Next(values.Length)] + (ulong)random.Next(-2, 3)),
        _ => values[random.Next(values.Length)],
    };
}
