using System.Buffers.Binary;
using Unikraft.Platform.Hypervisors;

namespace Unikraft.Platform.Kvm.Devices;

/// <summary>
/// The platform device of docs/kernel-guests.md: where a kernel can tell how far it has come and how it ends. It also knows what all the other ways to
/// end mean, because the stop code depends on how far the guest had come.
/// </summary>
internal sealed class KernelPlatformDevice(IMachineMonitor monitor, IMachineControl control) : IMmioDevice
{
    internal const ushort FirstPort = 0x620;
    internal const ulong Address = 0xD010_0000;
    internal const int Length = 32;

    internal const int MagicRegister = 0;
    internal const int VersionRegister = 4;
    internal const int InitLevelRegister = 8;
    internal const int ExitCodeRegister = 12;
    internal const int StopRegister = 16;

    /// <summary>The register of QEMU's device pvpanic, and what it tells it knows: that the guest has panicked.</summary>
    internal const ushort PanicPort = 0x505;
    internal const byte PanicEvents = 1;

    /// <summary>The ports that QEMU's device isa-debug-exit usually has.</summary>
    internal const ushort DebugExitPort = 0x501;
    internal const ushort OldDebugExitPort = 0xF4;

    private const uint Magic = 0x4450_4B55;
    private const uint Version = 0x0001_0000;
    private const uint ShuttingDown = 1 << 8;
    private const int ErrnoNotRecoverable = 131;
    private const int RegisterSize = sizeof(uint);

    private readonly Lock _lock = new();
    private int? _initLevel;
    private bool _isShuttingDown;
    private volatile bool _hasReachedMain;
    private int? _exitCode;

    internal bool HasReachedMain => _hasReachedMain;

    public void Read(IMmioInitiator initiator, ulong offset, Span<byte> data)
    {
        data.Fill(byte.MaxValue);
        if (data.Length == RegisterSize)
        {
            BinaryPrimitives.WriteUInt32LittleEndian(data, offset switch
            {
                MagicRegister => Magic,
                VersionRegister => Version,
                _ => uint.MaxValue,
            });
        }
    }

    public void Write(IMmioInitiator initiator, ulong offset, ReadOnlySpan<byte> data)
    {
        if (data.Length != RegisterSize)
        {
            return;
        }

        uint value = BinaryPrimitives.ReadUInt32LittleEndian(data);
        switch (offset)
        {
            case InitLevelRegister when (value & ~(ShuttingDown | (uint)StopCode.AppInitLevel)) == 0:
                SetLevel((int)(value & StopCode.AppInitLevel), (value & ShuttingDown) != 0);
                break;
            case ExitCodeRegister:
                lock (_lock)
                {
                    _exitCode = (int)value;
                }

                break;
            case StopRegister when value <= ushort.MaxValue:
                Stop((StopCodeReason)(byte)value, (int)(value >> 8));
                break;
        }
    }

    /// <summary>The guest has come to its main entry point, by what it does and not by what it says.</summary>
    internal void OnMainReached()
    {
        lock (_lock)
        {
            if (_hasReachedMain)
            {
                return;
            }

            _hasReachedMain = true;
        }

        monitor.OnMainReached();
    }

    /// <summary>The regular end: the app has ended as well, and well if it has not said otherwise.</summary>
    internal void OnPowerOff()
    {
        lock (_lock)
        {
            control.End(new MachineExit.PoweredOff(_exitCode ?? 0, MakeStopCode(StopCodeReason.Ok, 0, isShuttingDown: true)));
        }
    }

    /// <summary>The guest wants to be started again, which is for the restart policy to decide.</summary>
    /// <param name="isAbrupt">Whether the kernel was not shut down before, by what it has left behind: it has panicked, unless it has told that it was shutting down.</param>
    internal void OnReset(bool isAbrupt)
    {
        lock (_lock)
        {
            bool isPanic = isAbrupt && !_isShuttingDown;
            control.End(new MachineExit.PoweredOff(
                _exitCode,
                isPanic ? MakeStopCode(StopCodeReason.Exception, ErrnoNotRecoverable, isShuttingDown: false) : MakeStopCode(StopCodeReason.Ok, 0, isShuttingDown: true)));
        }
    }

    internal void OnPanic() => Stop(StopCodeReason.Exception, ErrnoNotRecoverable);

    internal void OnDebugExit(uint code) =>
        control.End(new MachineExit.PoweredOff((int)code, GetStopCode(StopCodeReason.Ok, 0, isShuttingDown: true)));

    internal void OnTripleFault() => control.End(new MachineExit.TripleFault(GetStopCode(StopCodeReason.Exception, ErrnoNotRecoverable)));

    /// <summary>Takes the state while no vCPU runs, which are all that change it: without the lock, which others may hold.</summary>
    internal void Save(PlatformDeviceCut cut, ConsoleInput input, ulong monotonic) =>
        cut.Take(_initLevel ?? 0, _isShuttingDown, _hasReachedMain, _exitCode, input, monotonic);

    /// <summary>Puts back what was taken.</summary>
    internal void Restore(PlatformDeviceState state)
    {
        lock (_lock)
        {
            _initLevel = state.InitLevel == 0 ? null : state.InitLevel;
            _isShuttingDown = state.IsShuttingDown;
            _hasReachedMain = state.HasReachedMain;
            _exitCode = state.ExitCode;
        }
    }

    private void SetLevel(int level, bool isShuttingDown)
    {
        lock (_lock)
        {
            (_initLevel, _isShuttingDown) = (level, isShuttingDown);
        }

        if (level == StopCode.AppInitLevel)
        {
            OnMainReached();
        }
    }

    private void Stop(StopCodeReason reason, int errno)
    {
        lock (_lock)
        {
            control.End(new MachineExit.PoweredOff(_exitCode, MakeStopCode(reason, errno, isShuttingDown: false)));
        }
    }

    private StopCode GetStopCode(StopCodeReason reason, int errno, bool isShuttingDown = false)
    {
        lock (_lock)
        {
            return MakeStopCode(reason, errno, isShuttingDown);
        }
    }

    /// <summary>A guest that does not tell its level executes its app from the moment when it was found to have reached it.</summary>
    private StopCode MakeStopCode(StopCodeReason reason, int errno, bool isShuttingDown) =>
        new(reason, errno, _initLevel ?? (_hasReachedMain ? StopCode.AppInitLevel : 0), _isShuttingDown || isShuttingDown);
}
