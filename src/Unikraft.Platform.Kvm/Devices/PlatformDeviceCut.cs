using System.Buffers;

namespace Unikraft.Platform.Kvm.Devices;

/// <summary>Room for the state of the platform device, made before the moment in which it is taken.</summary>
internal sealed class PlatformDeviceCut : IDisposable
{
    private readonly byte[] _consoleInput = ArrayPool<byte>.Shared.Rent(Devices.ConsoleInput.Capacity);
    private int _consoleInputLength;
    private int _initLevel;
    private bool _isShuttingDown;
    private bool _hasReachedMain;
    private int? _exitCode;
    private ulong _monotonic;

    /// <summary>Takes the state. Takes no lock and allocates nothing: no vCPU runs.</summary>
    internal void Take(int initLevel, bool isShuttingDown, bool hasReachedMain, int? exitCode, ConsoleInput input, ulong monotonic)
    {
        (_initLevel, _isShuttingDown, _hasReachedMain, _exitCode, _monotonic) = (initLevel, isShuttingDown, hasReachedMain, exitCode, monotonic);
        _consoleInputLength = input.Peek(_consoleInput.AsSpan(0, Devices.ConsoleInput.Capacity));
    }

    /// <summary>The state that was taken.</summary>
    internal PlatformDeviceState ToState() => new(
        _initLevel,
        _isShuttingDown,
        _hasReachedMain,
        _exitCode,
        _consoleInput.AsSpan(0, _consoleInputLength).ToArray(),
        _monotonic);

    public void Dispose() => ArrayPool<byte>.Shared.Return(_consoleInput);
}
