using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Kvm.Boot;
using Unikraft.Platform.Kvm.Devices;

namespace Unikraft.Platform.Kvm.Tests.Devices;

/// <summary>Section 7 of the ABI.</summary>
public sealed class FaultDeviceTests : IDisposable
{
    private const long Frame = 0x5000 + 100;
    private const ulong Rip = 0x10_1234;
    private const ulong Rsp = 0x15_0000;

    private readonly FakeMachine _machine = new();

    /// <summary>All exceptions but page faults, and the numbers that are none.</summary>
    public static TheoryData<int, StopCodeReason, int> Vectors => new()
    {
        { 0, StopCodeReason.Math, 0 },
        { 1, StopCodeReason.InvalidOperation, 0 },
        { 2, StopCodeReason.Exception, 0 },
        { 3, StopCodeReason.InvalidOperation, 0 },
        { 4, StopCodeReason.InvalidOperation, 0 },
        { 5, StopCodeReason.InvalidOperation, 0 },
        { 6, StopCodeReason.InvalidOperation, 0 },
        { 7, StopCodeReason.InvalidOperation, 0 },
        { 8, StopCodeReason.Exception, 0 },
        { 9, StopCodeReason.Exception, 0 },
        { 10, StopCodeReason.SegmentationFault, 14 },
        { 11, StopCodeReason.SegmentationFault, 14 },
        { 12, StopCodeReason.SegmentationFault, 14 },
        { 13, StopCodeReason.SegmentationFault, 14 },
        { 15, StopCodeReason.Exception, 0 },
        { 16, StopCodeReason.Math, 0 },
        { 17, StopCodeReason.InvalidOperation, 0 },
        { 18, StopCodeReason.HardwareError, 0 },
        { 19, StopCodeReason.Math, 0 },
        { 20, StopCodeReason.Exception, 0 },
        { 21, StopCodeReason.SecurityViolation, 13 },
        { 22, StopCodeReason.Exception, 0 },
        { 28, StopCodeReason.Exception, 0 },
        { 29, StopCodeReason.Exception, 0 },
        { 30, StopCodeReason.Exception, 0 },
        { 31, StopCodeReason.Exception, 0 },
        { 32, StopCodeReason.Exception, 0 },
        { -1, StopCodeReason.Exception, 0 },
    };

    public void Dispose() => _machine.Dispose();

    [Theory]
    [MemberData(nameof(Vectors))]
    public void Every_vector_has_its_stop_code(int vector, StopCodeReason reason, int errno)
    {
        bool hasErrorCode = vector is 8 or 10 or 11 or 12 or 13 or 17 or 21 or 29 or 30;
        WriteFrame(hasErrorCode ? 0x18UL : null);

        MachineExit.Crashed crashed = Report(vector, address: 0xDEAD);

        Assert.Equal(new StopCode(reason, errno, 127), crashed.StopCode);
        Assert.Equal(new GuestFault(1, vector, hasErrorCode ? 0x18UL : 0, Rip, Rsp, Address: null), crashed.Fault);
    }

    /// <summary>The error code of a page fault: bit 0 the page is mapped, bit 1 write, bit 2 from ring 3, bit 4 fetching an instruction.</summary>
    [Fact]
    public void Every_page_fault_has_its_stop_code()
    {
        FlatGuestLayout layout = _machine.Layout;
        const ulong Memory = FakeMachine.Size;
        ulong guard = (ulong)layout.StacksStart;
        ulong lastGuard = (ulong)layout.HeapStart - 1;
        Assert.True(layout.IsStackGuard(guard) && layout.IsStackGuard(lastGuard));
        ulong[] plain = [0, 0x1000, 0xF_FFFF, 0x10_3000, FlatGuestLayout.HeapWindowEnd, 1UL << 40, 1UL << 63, ulong.MaxValue];
        ulong[] window = [Memory, Memory + 1, 0x40_0000_0000, FlatGuestLayout.HeapWindowEnd - 1];
        ulong[] guards = [guard, guard + 0xFFF, (ulong)layout.StackTop(0), (ulong)layout.StackTop(0) + 0xFFF, lastGuard];
        for (ulong error = 0; error < 64; error++)
        {
            bool isMapped = (error & 1) != 0;
            bool isFetch = (error & 16) != 0;
            foreach (ulong address in plain.Concat(window).Concat(guards))
            {
                StopCode expected = (isMapped, window.Contains(address) && !isFetch, guards.Contains(address)) switch
                {
                    (true, _, _) => new StopCode(StopCodeReason.SecurityViolation, 13),
                    (_, true, _) => new StopCode(StopCodeReason.PageFault, 12),
                    (_, _, true) => new StopCode(StopCodeReason.SegmentationFault, 12),
                    _ => new StopCode(StopCodeReason.PageFault, 14),
                };
                WriteFrame(error);

                MachineExit.Crashed crashed = Report(14, address);

                Assert.True(expected == crashed.StopCode, $"error 0x{error:x} at 0x{address:x}: {crashed.StopCode}");
                Assert.Equal(new GuestFault(1, 14, error, Rip, Rsp, address), crashed.Fault);
            }
        }
    }

    [Fact]
    public void Out_of_memory_in_the_app_is_the_documented_number()
    {
        WriteFrame(6);
        Assert.Equal("0x000C7F04", Report(14, FakeMachine.Size).StopCode.ToString());
    }

    [Theory]
    [InlineData(0, 0)]
    [InlineData(3, 1)]
    [InlineData(127, 1)]
    public void Level_and_shutdown_bit_are_those_of_the_guest(ulong level, ulong shuttingDown)
    {
        WriteFrame(null);
        StopCode code = Report(0, 0, level, shuttingDown).StopCode;
        Assert.Equal(new StopCode(StopCodeReason.Math, 0, (int)level, shuttingDown != 0), code);
        Assert.Equal(new StopCode(StopCodeReason.Exception, 131, (int)level, shuttingDown != 0), _machine.Faults.TripleFault);
    }

    [Fact]
    public void An_interrupt_that_was_asked_for_kills_the_app()
    {
        _machine.Faults.ExpectKill();
        WriteFrame(null);
        Assert.Equal(new StopCode(StopCodeReason.Exception, 110, 127, isShuttingDown: true), Report(2, 0).StopCode);
        Assert.Equal(new StopCode(StopCodeReason.Math, 0, 127), Report(0, 0).StopCode);
    }

    [Fact]
    public void An_instruction_that_cannot_be_emulated_is_an_invalid_one()
    {
        _machine.Call((uint)GuestCall.InitLevel, 127);
        _machine.Faults.OnEmulationFailure(new FakeMachine.Initiator(1), Rip, Rsp);
        Assert.Equal(
            new MachineExit.Crashed(new StopCode(StopCodeReason.InvalidOperation), new GuestFault(1, 6, 0, Rip, Rsp, Address: null)),
            Assert.Single(_machine.Exits));
    }

    [Theory]
    [InlineData(FakeMachine.Size)]
    [InlineData(FakeMachine.Size - 1)]
    [InlineData(FakeMachine.Size - 47)]
    [InlineData(ulong.MaxValue)]
    [InlineData(1UL << 63)]
    public void A_stack_outside_memory_is_reported_without_a_frame(ulong stack)
    {
        _machine.Faults.Write(new FakeMachine.Initiator(0, stack, 0x1234), 0, [14, 0, 0, 0]);
        MachineExit.Crashed crashed = Assert.IsType<MachineExit.Crashed>(Assert.Single(_machine.Exits));
        Assert.Equal(new GuestFault(0, 14, 0, 0, stack, 0x1234), crashed.Fault);
    }

    [Fact]
    public void A_frame_at_the_very_end_of_memory_is_read()
    {
        _machine.Faults.Write(new FakeMachine.Initiator(0, FakeMachine.Size - 48, 0x1234), 0, [14, 0, 0, 0]);
        _machine.Faults.Write(new FakeMachine.Initiator(0, FakeMachine.Size - 40), 0, [0, 0, 0, 0]);
        Assert.Equal(2, _machine.Exits.Count);
    }

    [Theory]
    [InlineData(4, 4)]
    [InlineData(0, 1)]
    [InlineData(0, 2)]
    [InlineData(0, 8)]
    public void Other_accesses_are_ignored(ulong offset, int length)
    {
        _machine.Faults.Write(new FakeMachine.Initiator(0), offset, new byte[length]);
        Assert.Empty(_machine.Exits);
        byte[] data = new byte[length];
        _machine.Faults.Read(new FakeMachine.Initiator(0), offset, data);
        Assert.All(data, value => Assert.Equal(byte.MaxValue, value));
    }

    /// <summary>What the CPU pushes: the error code if there is one, rip, cs, rflags, rsp, ss.</summary>
    private void WriteFrame(ulong? errorCode)
    {
        long at = Frame;
        if (errorCode is { } code)
        {
            _machine.Memory.Write(at, code);
            at += 8;
        }

        _machine.Memory.Write(at, Rip);
        _machine.Memory.Write(at + 8, 0x33UL);
        _machine.Memory.Write(at + 16, 0x202UL);
        _machine.Memory.Write(at + 24, Rsp);
        _machine.Memory.Write(at + 32, 0x2BUL);
    }

    private MachineExit.Crashed Report(int vector, ulong address, ulong level = 127, ulong shuttingDown = 0)
    {
        _machine.Call((uint)GuestCall.InitLevel, level, shuttingDown);
        _machine.Exits.Clear();
        _machine.Faults.Write(new FakeMachine.Initiator(1, Frame, address), 0, BitConverter.GetBytes(vector));
        return Assert.IsType<MachineExit.Crashed>(Assert.Single(_machine.Exits));
    }
}
