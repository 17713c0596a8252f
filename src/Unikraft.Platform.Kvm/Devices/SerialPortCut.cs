namespace Unikraft.Platform.Kvm.Devices;

/// <summary>Room for the state of a <see cref="SerialPort"/>, made before the moment in which it is taken.</summary>
internal sealed class SerialPortCut
{
    private readonly byte[] _received = new byte[SerialPort.FifoSize];
    private SerialPortState _state;
    private int _length;

    /// <summary>Takes the state. Takes no lock and allocates nothing: no vCPU runs.</summary>
    internal void Take(in SerialPortState state, Queue<byte> received)
    {
        _state = state;
        received.CopyTo(_received, 0);
        _length = received.Count;
    }

    /// <summary>The state that was taken.</summary>
    internal SerialPortState ToState() => _state with { Received = _received.AsSpan(0, _length).ToArray() };
}
