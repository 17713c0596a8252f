using System.Buffers.Binary;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Security.Cryptography;
using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Kvm.Boot;
using Unikraft.Platform.Kvm.Memory;

namespace Unikraft.Platform.Kvm.Devices;

/// <summary>
/// The platform device of docs/guest-abi.md: a doorbell for calls whose arguments lie in memory. The counterpart of the files below
/// <c>/uk/libukp</c>.
/// </summary>
internal sealed class PlatformDevice : IMmioDevice
{
    private const uint Magic = 0x4450_4B55;
    private const ulong MagicOffset = 0;
    private const ulong VersionOffset = 4;
    private const ulong DoorbellOffset = 8;
    private const int RegisterSize = 4;

    private const int MaxInitLevel = StopCode.AppInitLevel;
    private const int MaxConsoleWrite = 64 << 10;
    private const int MaxConsoleRead = 64 << 10;
    private const int MaxRandom = 4096;

    private const int UuidSize = 16;

    private const int ErrnoBadAddress = 14;
    private const int ErrnoBusy = 16;
    private const int ErrnoInvalidArgument = 22;
    private const int ErrnoNotImplemented = 38;

    private readonly GuestMemory _memory;
    private readonly FlatGuestLayout _layout;
    private readonly IMachineMonitor _monitor;
    private readonly IMachineControl _control;
    private readonly GuestClock _clock;
    private readonly Lock _lock = new();
    private int _initLevel;
    private bool _shuttingDown;
    private volatile bool _reachedMain;
    private int? _exitCode;

    internal PlatformDevice(
        GuestMemory memory,
        FlatGuestLayout layout,
        IMachineMonitor monitor,
        IMachineControl control,
        GuestClock clock,
        ConsoleInput input)
    {
        _memory = memory;
        _layout = layout;
        _monitor = monitor;
        _control = control;
        _clock = clock;
        Input = input;
    }

    internal ConsoleInput Input { get; }

    /// <summary>Does what disks were asked for. Called by a vCPU that is about to sleep until they tell.</summary>
    internal Action ServeDisks { get; set; } = static () => { };

    internal bool HasReachedMain => _reachedMain;

    public void Read(IMmioInitiator initiator, ulong offset, Span<byte> data)
    {
        uint value = (offset, data.Length) switch
        {
            (MagicOffset, RegisterSize) => Magic,
            (VersionOffset, RegisterSize) => FlatGuestLayout.AbiVersion,
            _ => uint.MaxValue,
        };
        data.Fill(byte.MaxValue);
        if (data.Length == RegisterSize)
        {
            BinaryPrimitives.WriteUInt32LittleEndian(data, value);
        }
    }

    public void Write(IMmioInitiator initiator, ulong offset, ReadOnlySpan<byte> data)
    {
        if (offset == DoorbellOffset && data.Length == RegisterSize)
        {
            Call(initiator.Index);
        }
    }

    /// <summary>Writes the outcome of a wait into the call block of a vCPU.</summary>
    internal void FinishWait(int vcpu, uint events) => Respond(vcpu, status: 0, events);

    /// <summary>Writes the answer to a request into the call block of a vCPU, and where the guest wants it.</summary>
    internal void FinishRequest(int vcpu, GuestCall call, ulong address, RequestAnswer answer)
    {
        if (answer.Errno == 0 && call == GuestCall.Fork)
        {
            Span<byte> uuid = stackalloc byte[UuidSize];
            answer.Child.TryWriteBytes(uuid, bigEndian: true, out _);
            _memory.Write((long)address, uuid);
        }

        Respond(vcpu, -answer.Errno, call == GuestCall.Fork && answer.IsClone ? 1u : 0u);
    }

    /// <summary>Makes a stop code of a reason and the phase of its life that the guest is in.</summary>
    internal StopCode MakeStopCode(StopCodeReason reason, int errno, bool killed = false)
    {
        lock (_lock)
        {
            return new StopCode(reason, errno, _initLevel, _shuttingDown || killed);
        }
    }

    /// <summary>Takes the state while no vCPU runs, which are all that change it: without the lock, which others may hold.</summary>
    internal void Save(PlatformDeviceCut cut) =>
        cut.Take(_initLevel, _shuttingDown, _reachedMain, _exitCode, Input, _clock.Monotonic);

    internal void Restore(PlatformDeviceState state)
    {
        lock (_lock)
        {
            (_initLevel, _shuttingDown, _reachedMain, _exitCode) =
                (state.InitLevel, state.IsShuttingDown, state.HasReachedMain, state.ExitCode);
        }

        Input.Restore(state.ConsoleInput);
    }

    private void Call(int vcpu)
    {
        // One read, then only the copy is looked at: another vCPU may be changing the block.
        CallBlock block = _memory.Read<CallBlock>(FlatGuestLayout.CallBlock(vcpu));
        switch ((GuestCall)block.Op)
        {
            case GuestCall.Nop:
                Respond(vcpu, status: 0);
                break;
            case GuestCall.InitLevel:
                SetInitLevel(vcpu, block);
                break;
            case GuestCall.ExitCode:
                lock (_lock)
                {
                    _exitCode = (int)block.Argument0;
                }

                Respond(vcpu, status: 0);
                break;
            case GuestCall.Stop:
                Stop(vcpu, block);
                break;
            case GuestCall.PowerOff:
                EndPoweredOff(stopCode: null);
                break;
            case GuestCall.ConsoleWrite:
                WriteConsole(vcpu, block);
                break;
            case GuestCall.ConsoleRead:
                ReadConsole(vcpu, block);
                break;
            case GuestCall.Wait:
                if ((block.Argument1 & GuestEvents.Disk) != 0)
                {
                    ServeDisks();
                }

                _control.BeginWait(vcpu, block.Argument0, (uint)block.Argument1);
                break;
            case GuestCall.Clock:
                Respond(vcpu, status: 0, _clock.Monotonic, _clock.WallClock);
                break;
            case GuestCall.Random:
                FillRandom(vcpu, block);
                break;
            case GuestCall.Wake:
                Wake(vcpu, block);
                break;
            case GuestCall.Template:
                if (BeginRequest(vcpu, GuestCall.Template, address: 0))
                {
                    _monitor.OnTemplateRequested();
                }

                break;
            case GuestCall.Fork:
                Fork(vcpu, block);
                break;
            default:
                Respond(vcpu, -ErrnoNotImplemented);
                break;
        }
    }

    private void SetInitLevel(int vcpu, CallBlock block)
    {
        if (block.Argument0 > MaxInitLevel || block.Argument1 > 1)
        {
            Respond(vcpu, -ErrnoInvalidArgument);
            return;
        }

        bool reached = false;
        lock (_lock)
        {
            _initLevel = (int)block.Argument0;
            _shuttingDown = block.Argument1 != 0;
            if (_initLevel == StopCode.AppInitLevel && !_shuttingDown && !_reachedMain)
            {
                reached = _reachedMain = true;
            }
        }

        Respond(vcpu, status: 0);
        if (reached)
        {
            _monitor.OnMainReached();
        }
    }

    private void Stop(int vcpu, CallBlock block)
    {
        if (block.Argument0 > byte.MaxValue || block.Argument1 > byte.MaxValue)
        {
            Respond(vcpu, -ErrnoInvalidArgument);
            return;
        }

        EndPoweredOff(MakeStopCode((StopCodeReason)block.Argument0, (int)block.Argument1));
    }

    private void EndPoweredOff(StopCode? stopCode)
    {
        int? exitCode;
        lock (_lock)
        {
            exitCode = _exitCode;
        }

        _control.End(new MachineExit.PoweredOff(exitCode, stopCode));
    }

    private void WriteConsole(int vcpu, CallBlock block)
    {
        ulong length = Math.Min(block.Argument1, MaxConsoleWrite);
        if (!_layout.IsAccessible(block.Argument0, length, write: false))
        {
            Respond(vcpu, -ErrnoBadAddress);
            return;
        }

        if (length > 0)
        {
            _monitor.OnConsoleOutput(_memory.Read((long)block.Argument0, (int)length));
        }

        Respond(vcpu, status: 0, length);
    }

    private void ReadConsole(int vcpu, CallBlock block)
    {
        ulong length = Math.Min(block.Argument1, MaxConsoleRead);
        if (!_layout.IsAccessible(block.Argument0, length, write: true))
        {
            Respond(vcpu, -ErrnoBadAddress);
            return;
        }

        int read = length == 0
            ? 0
            : _memory.Fill((long)block.Argument0, (int)length, Input, static (bytes, input) => input.Read(bytes));
        Respond(vcpu, status: 0, (ulong)read);
    }

    private void FillRandom(int vcpu, CallBlock block)
    {
        if (block.Argument1 > MaxRandom)
        {
            Respond(vcpu, -ErrnoInvalidArgument);
        }
        else if (!_layout.IsAccessible(block.Argument0, block.Argument1, write: true))
        {
            Respond(vcpu, -ErrnoBadAddress);
        }
        else
        {
            if (block.Argument1 > 0)
            {
                _memory.Fill((long)block.Argument0, (int)block.Argument1, 0, static (bytes, _) =>
                {
                    RandomNumberGenerator.Fill(bytes);
                    return bytes.Length;
                });
            }

            Respond(vcpu, status: 0, block.Argument1);
        }
    }

    private void Wake(int vcpu, CallBlock block)
    {
        if (block.Argument0 >= (ulong)_layout.Vcpus)
        {
            Respond(vcpu, -ErrnoInvalidArgument);
            return;
        }

        _control.Wake((int)block.Argument0);
        Respond(vcpu, status: 0);
    }

    private void Fork(int vcpu, CallBlock block)
    {
        if (!_layout.IsAccessible(block.Argument0, UuidSize, write: true))
        {
            Respond(vcpu, -ErrnoBadAddress);
        }
        else if (BeginRequest(vcpu, GuestCall.Fork, block.Argument0))
        {
            _monitor.OnForkRequested();
        }
    }

    private bool BeginRequest(int vcpu, GuestCall call, ulong address)
    {
        bool begun = _control.BeginRequest(vcpu, call, address);
        if (!begun)
        {
            Respond(vcpu, -ErrnoBusy);
        }

        return begun;
    }

    private void Respond(int vcpu, int status, ulong first = 0, ulong second = 0)
    {
        const int StatusOffset = 4;
        const int ReturnOffset = 40;
        long block = FlatGuestLayout.CallBlock(vcpu);
        _memory.Write(block + StatusOffset, status);
        if (status == 0)
        {
            _memory.Write(block + ReturnOffset, new CallReturn(first, second));
        }
    }

    [StructLayout(LayoutKind.Sequential)]
    private readonly struct CallBlock
    {
        internal readonly uint Op;
        internal readonly int Status;
        internal readonly ulong Argument0;
        internal readonly ulong Argument1;
        internal readonly ulong Argument2;
        internal readonly ulong Argument3;
    }

    [StructLayout(LayoutKind.Sequential)]
    private readonly record struct CallReturn(ulong First, ulong Second);
}
