using System.Text;
using Unikraft.Platform.Kvm.Devices;
using Unikraft.Platform.Kvm.Tests.Testing;

namespace Unikraft.Platform.Kvm.Tests.Devices;

public sealed class SerialPortTests : IDisposable
{
    private const ulong Data = 0;
    private const ulong InterruptEnable = 1;
    private const ulong InterruptIdentity = 2;
    private const ulong LineControl = 3;
    private const ulong ModemControl = 4;
    private const ulong LineStatus = 5;
    private const ulong ModemStatus = 6;
    private const ulong Scratch = 7;

    private readonly FakeMachine _machine = new();
    private readonly FakeLine _line = new();
    private readonly StringBuilder _output = new();
    private readonly SerialPort _port;

    public SerialPortTests() =>
        _port = new SerialPort(_line, _machine.Input, bytes => _output.Append(Encoding.ASCII.GetString(bytes)));

    public void Dispose() => _machine.Dispose();

    [Fact]
    public void Bytes_are_sent_at_once()
    {
        foreach (byte one in "hello\n"u8)
        {
            Assert.Equal(0x60, Read(LineStatus) & 0x60);
            Write(Data, one);
        }

        Assert.Equal("hello\n", _output.ToString());
        Assert.Equal(0, _line.RisingEdges);
    }

    [Fact]
    public async Task Bytes_are_received_in_order_and_the_line_falls_after_the_last_one()
    {
        byte[] sent = [.. Enumerable.Range(0, 40).Select(static i => (byte)(i + 1))];
        Write(InterruptEnable, 1);
        Assert.False(_line.IsHigh);
        await SendAsync(sent);

        List<byte> received = [];
        while ((Read(LineStatus) & 1) != 0)
        {
            Assert.True(_line.IsHigh);
            Assert.Equal(4, Read(InterruptIdentity) & 0xF);
            received.Add(Read(Data));
        }

        Assert.Equal(sent, received);
        Assert.False(_line.IsHigh);
        Assert.Equal(1, Read(InterruptIdentity) & 0xF);
        Assert.Equal(0, Read(Data));
        await SendAsync([9]);
        Assert.Equal(2, _line.RisingEdges);
    }

    [Fact]
    public async Task What_came_while_the_interrupt_was_disabled_interrupts_when_it_is_enabled()
    {
        await SendAsync([1]);
        Assert.False(_line.IsHigh);
        Write(InterruptEnable, 1);
        Assert.True(_line.IsHigh);
    }

    [Fact]
    public void An_empty_transmitter_interrupts_when_enabled_and_after_every_byte()
    {
        Write(InterruptEnable, 2);
        Assert.Equal(2, Read(InterruptIdentity) & 0xF);
        Assert.False(_line.IsHigh);
        Assert.Equal(1, Read(InterruptIdentity) & 0xF);
        Write(Data, (byte)'x');
        Assert.True(_line.IsHigh);
        Assert.Equal(2, _line.RisingEdges);
        Write(InterruptEnable, 2);
        Assert.Equal(2, Read(InterruptIdentity) & 0xF);
        Write(InterruptEnable, 0);
        Write(Data, (byte)'y');
        Assert.False(_line.IsHigh);
    }

    [Fact]
    public async Task Received_bytes_come_before_the_transmitter()
    {
        Write(InterruptEnable, 3);
        await SendAsync([1]);
        Assert.Equal(4, Read(InterruptIdentity) & 0xF);
        Read(Data);
        Assert.Equal(2, Read(InterruptIdentity) & 0xF);
        Assert.Equal(1, Read(InterruptIdentity) & 0xF);
    }

    [Fact]
    public void The_divisor_hides_behind_its_latch()
    {
        Write(InterruptEnable, 5);
        Write(LineControl, 0x83);
        Write(Data, 0x34);
        Write(InterruptEnable, 0x12);
        Assert.Equal((0x34, 0x12, 0x83), (Read(Data), Read(InterruptEnable), Read(LineControl)));
        Write(LineControl, 0x03);
        Assert.Equal(5, Read(InterruptEnable));
        Assert.Equal(0, Read(Data));
        Assert.Empty(_output.ToString());
    }

    /// <summary>What Linux does to find out which chip this is.</summary>
    [Fact]
    public void It_is_recognised_as_a_16550A()
    {
        Write(InterruptEnable, 0xFF);
        Assert.Equal(0x0F, Read(InterruptEnable));
        Write(InterruptEnable, 0);
        Write(ModemControl, 0x1A);
        Assert.Equal(0x90, Read(ModemStatus) & 0xF0);
        Write(ModemControl, 0x15);
        Assert.Equal(0x60, Read(ModemStatus) & 0xF0);
        Write(ModemControl, 0);
        Assert.Equal(0xB0, Read(ModemStatus));
        Assert.Equal(0, Read(InterruptIdentity) & 0xC0);
        Write(InterruptIdentity, 1);
        Assert.Equal(0xC0, Read(InterruptIdentity) & 0xC0);
        Write(Scratch, 0xA5);
        Assert.Equal(0xA5, Read(Scratch));
    }

    [Fact]
    public async Task In_loopback_it_hears_itself_and_nobody_else()
    {
        Write(ModemControl, 0x10);
        await SendAsync([7]);
        Assert.Equal(0, Read(LineStatus) & 1);
        for (int i = 0; i < 20; i++)
        {
            Write(Data, (byte)i);
        }

        Assert.Equal(Enumerable.Range(0, 16).Select(static i => (byte)i), Enumerable.Range(0, 16).Select(_ => Read(Data)));
        Assert.Equal(0, Read(LineStatus) & 1);
        Assert.Empty(_output.ToString());
        Write(ModemControl, 0);
        Assert.Equal(7, Read(Data));
    }

    [Fact]
    public async Task The_fifo_is_cleared_on_request_and_the_queue_behind_it_is_not()
    {
        await SendAsync([.. Enumerable.Range(0, 20).Select(static i => (byte)i)]);
        Assert.Equal(1, Read(LineStatus) & 1);
        Write(InterruptIdentity, 3);
        Assert.Equal([16, 17, 18, 19, 0], Enumerable.Range(0, 5).Select(_ => Read(Data)));
    }

    [Fact]
    public async Task A_port_goes_on_in_a_clone()
    {
        await SendAsync([1, 2, 3]);
        Write(InterruptEnable, 1);
        Read(Data);
        Write(Scratch, 9);
        SerialPortState state = _port.Save();

        FakeLine line = new();
        using FakeMachine machine = new();
        SerialPort clone = new(line, machine.Input, _ => Assert.Fail("Nothing was sent."));
        clone.Restore(state);

        Assert.True(line.IsHigh);
        Assert.Equal((9, 2, 3, 0), (Read(clone, Scratch), Read(clone, Data), Read(clone, Data), Read(clone, Data)));
        Assert.False(line.IsHigh);
        Assert.Equal(2, Read(Data));
    }

    [Fact]
    public async Task Its_state_is_taken_while_somebody_types()
    {
        using HeldLine line = new();
        SerialPort port = new(line, _machine.Input, static _ => { });
        port.Write(new FakeMachine.Initiator(0), InterruptEnable, [1]);
        Assert.Equal(3, await _machine.Input.WriteAsync(new byte[3], CancellationToken.None).Guarded());
        SerialPortState state = await line.WhileSetAsync(port.OnInput, port.Save);

        // What the guest has not looked at yet is saved with the input.
        Assert.Equal((1, 0), (state.InterruptEnable, state.Received.Length));
        Assert.Equal(3, _machine.Input.Save().Length);
    }

    [Fact]
    public void Wide_accesses_are_those_of_the_first_register()
    {
        byte[] data = new byte[4];
        _port.Read(new FakeMachine.Initiator(0), LineStatus, data);
        Assert.Equal([0x60, 0xFF, 0xFF, 0xFF], data);
        _port.Write(new FakeMachine.Initiator(0), Data, [(byte)'a', (byte)'b']);
        Assert.Equal("a", _output.ToString());
    }

    private async Task SendAsync(byte[] bytes)
    {
        Assert.Equal(bytes.Length, await _machine.Input.WriteAsync(bytes, CancellationToken.None).Guarded());
        _port.OnInput();
    }

    private static byte Read(SerialPort port, ulong register)
    {
        byte[] data = new byte[1];
        port.Read(new FakeMachine.Initiator(0), register, data);
        return data[0];
    }

    private byte Read(ulong register) => Read(_port, register);

    private void Write(ulong register, byte value) => _port.Write(new FakeMachine.Initiator(0), register, [value]);
}
