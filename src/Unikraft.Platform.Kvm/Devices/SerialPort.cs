namespace Unikraft.Platform.Kvm.Devices;

/// <summary>A 16550A: the console of a kernel guest, in both directions. What is sent is gone at once; what was received waits in the guest's FIFO.</summary>
/// <param name="line">Its interrupt line.</param>
/// <param name="input">What the guest has not read yet. <see cref="OnInput"/> is to be called when there is more.</param>
/// <param name="output">Takes the bytes that the guest sends.</param>
/// <param name="listening">Called whenever the guest lets the port interrupt it for input. Default: nobody is.</param>
internal sealed class SerialPort(IInterruptLine line, ConsoleInput input, SerialPort.OutputHandler output, Action? listening = null) : IMmioDevice
{
    internal const ushort FirstPort = 0x3F8;
    internal const byte Ports = 8;
    internal const uint Interrupt = 4;

    internal const int FifoSize = 16;

    // Registers.
    private const int Data = 0;
    private const int InterruptEnable = 1;
    private const int InterruptIdentity = 2;
    private const int LineControl = 3;
    private const int ModemControl = 4;
    private const int LineStatus = 5;
    private const int ModemStatus = 6;
    private const int Scratch = 7;

    private const byte DataAvailableEnabled = 1 << 0;
    private const byte TransmitterEmptyEnabled = 1 << 1;
    private const byte InterruptEnableBits = 0xF;

    private const byte NoInterrupt = 1;
    private const byte TransmitterEmptyInterrupt = 2;
    private const byte DataAvailableInterrupt = 4;
    private const byte FifosEnabled = 0xC0;
    private const byte EnableFifos = 1 << 0;
    private const byte ClearReceiver = 1 << 1;

    private const byte DivisorLatchAccess = 1 << 7;

    private const byte RequestToSend = 1 << 1;
    private const byte InterruptGate = 1 << 3;
    private const byte Loopback = 1 << 4;
    private const byte ModemControlBits = 0x1F;

    private const byte DataReady = 1 << 0;
    private const byte TransmitterEmpty = 0x60;

    // Somebody is there and listens: carrier, data set ready, clear to send.
    private const byte Connected = 0xB0;

    // Callers of the platform take it only to set the line. What else it guards is changed by vCPUs alone, and can be read without it while none runs.
    private readonly Lock _lock = new();
    private readonly Queue<byte> _received = new(FifoSize);
    private SerialPortState _state = SerialPortState.Initial;
    private bool _isHigh;

    internal delegate void OutputHandler(ReadOnlySpan<byte> bytes);

    /// <summary>There may be something to read. To be called after the input was written, and not from inside of it: the port takes its lock first.</summary>
    internal void OnInput()
    {
        lock (_lock)
        {
            Update();
        }
    }

    /// <summary>Takes the registers and what is in the FIFO while no vCPU runs, which are all that change it: without the lock, which others may hold.</summary>
    internal void Save(SerialPortCut cut) => cut.Take(in _state, _received);

    /// <summary>Puts back what was taken.</summary>
    internal void Restore(SerialPortState state)
    {
        lock (_lock)
        {
            _state = state;
            _received.Clear();
            foreach (byte one in state.Received.Span)
            {
                _received.Enqueue(one);
            }

            Update();
        }
    }

    public void Read(IMmioInitiator initiator, ulong offset, Span<byte> data)
    {
        data.Fill(byte.MaxValue);
        lock (_lock)
        {
            data[0] = Read((int)offset);
            Update();
        }
    }

    public void Write(IMmioInitiator initiator, ulong offset, ReadOnlySpan<byte> data)
    {
        lock (_lock)
        {
            Write((int)offset, data[0]);
            Update();
        }
    }

    private bool IsDivisorLatchOpen => (_state.LineControl & DivisorLatchAccess) != 0;

    private byte Read(int register)
    {
        switch (register)
        {
            case Data when IsDivisorLatchOpen:
                return (byte)_state.Divisor;
            case Data:
                Fill();
                return _received.TryDequeue(out byte received) ? received : (byte)0;
            case InterruptEnable:
                return IsDivisorLatchOpen ? (byte)(_state.Divisor >> 8) : _state.InterruptEnable;
            case InterruptIdentity:
                byte identity = Identify();
                if (identity == TransmitterEmptyInterrupt)
                {
                    _state = _state with { IsTransmitterEmptyPending = false };
                }

                return (byte)(identity | (_state.HasFifos ? FifosEnabled : 0));
            case LineControl:
                return _state.LineControl;
            case ModemControl:
                return _state.ModemControl;
            case LineStatus:
                Fill();
                return (byte)(TransmitterEmpty | (_received.Count > 0 ? DataReady : 0));
            case ModemStatus:
                return (_state.ModemControl & Loopback) != 0 ? LoopedModemStatus() : Connected;
            default:
                return _state.Scratch;
        }
    }

    private void Write(int register, byte value)
    {
        switch (register)
        {
            case Data when IsDivisorLatchOpen:
                _state = _state with { Divisor = (ushort)(_state.Divisor & 0xFF00 | value) };
                break;
            case Data when (_state.ModemControl & Loopback) != 0:
                if (_received.Count < FifoSize)
                {
                    _received.Enqueue(value);
                }

                _state = _state with { IsTransmitterEmptyPending = true };
                break;
            case Data:
                output([value]);
                _state = _state with { IsTransmitterEmptyPending = true };
                break;
            case InterruptEnable when IsDivisorLatchOpen:
                _state = _state with { Divisor = (ushort)(_state.Divisor & 0xFF | value << 8) };
                break;
            case InterruptEnable:
                // The transmitter is always empty, so enabling its interrupt raises it.
                bool isNew = (value & ~_state.InterruptEnable & TransmitterEmptyEnabled) != 0;
                _state = _state with
                {
                    InterruptEnable = (byte)(value & InterruptEnableBits),
                    IsTransmitterEmptyPending = _state.IsTransmitterEmptyPending || isNew,
                };

                // A driver that looks for the port tries the register with the gate closed.
                if ((value & DataAvailableEnabled) != 0 && (_state.ModemControl & (InterruptGate | Loopback)) == InterruptGate)
                {
                    listening?.Invoke();
                }

                break;
            case InterruptIdentity:
                _state = _state with { HasFifos = (value & EnableFifos) != 0 };
                if ((value & ClearReceiver) != 0)
                {
                    _received.Clear();
                }

                break;
            case LineControl:
                _state = _state with { LineControl = value };
                break;
            case ModemControl:
                _state = _state with { ModemControl = (byte)(value & ModemControlBits) };
                break;
            case Scratch:
                _state = _state with { Scratch = value };
                break;
        }
    }

    /// <summary>In loopback, the outputs are the inputs: RTS is CTS, DTR is DSR, OUT1 is RI and OUT2 is DCD.</summary>
    private byte LoopedModemStatus()
    {
        byte control = _state.ModemControl;
        return (byte)((control & RequestToSend) << 3 | (control & 1) << 5 | (control & 0b1100) << 4);
    }

    /// <summary>Refills the FIFO from the console. In loopback nothing comes from outside.</summary>
    private void Fill()
    {
        if (_received.Count == 0 && (_state.ModemControl & Loopback) == 0)
        {
            Span<byte> buffer = stackalloc byte[FifoSize];
            foreach (byte one in buffer[..input.Read(buffer)])
            {
                _received.Enqueue(one);
            }
        }
    }

    /// <summary>Whether the guest can read something, in the FIFO or behind it.</summary>
    private bool HasInput => _received.Count > 0 || ((_state.ModemControl & Loopback) == 0 && input.IsAnyWaiting);

    private byte Identify()
    {
        if (HasInput && (_state.InterruptEnable & DataAvailableEnabled) != 0)
        {
            return DataAvailableInterrupt;
        }

        return _state.IsTransmitterEmptyPending && (_state.InterruptEnable & TransmitterEmptyEnabled) != 0
            ? TransmitterEmptyInterrupt
            : NoInterrupt;
    }

    private void Update()
    {
        bool isHigh = Identify() != NoInterrupt;
        if (isHigh != _isHigh)
        {
            _isHigh = isHigh;
            line.Set(isHigh);
        }
    }
}
