using System.Buffers.Binary;
using Unikraft.Platform.Kvm.Boot.Acpi;

namespace Unikraft.Platform.Kvm.Devices;

/// <summary>The registers that the ACPI tables refer to: power off, and the events that a kernel is told of, such as a pressed power button.</summary>
/// <param name="line">Its interrupt line.</param>
/// <param name="onPowerOff">Called when the guest powers itself off.</param>
internal sealed class PowerDevice(IInterruptLine line, Action onPowerOff) : IMmioDevice
{
    internal const ushort FirstPort = 0x600;
    internal const byte Ports = 8;
    internal const uint Interrupt = 9;

    internal const int SleepControl = 0;
    internal const int SleepStatus = 1;
    internal const int Events = 4;

    internal const byte PowerButtonEvent = 1 << 0;
    internal const byte GenerationEvent = 1 << 1;

    private const byte SleepTypeShift = 2;
    private const byte SleepTypeMask = 7;
    private const byte SleepEnable = 1 << 5;

    private const ushort QemuSleepEnable = 0x2000;

    private readonly Lock _lock = new();
    private byte _events;

    /// <summary>The events that the guest has not read yet; for a snapshot, which takes no lock that somebody may hold who presses the button.</summary>
    internal byte PendingEvents => Volatile.Read(ref _events);

    /// <summary>Presses the power button: asks the guest to shut down.</summary>
    internal void PressPowerButton() => Raise(PowerButtonEvent);

    /// <summary>Tells the guest that it has another generation id.</summary>
    internal void TellGeneration() => Raise(GenerationEvent);

    /// <summary>Puts back what a snapshot has taken, but for a button that was pressed: who pressed it meant the machine that was captured.</summary>
    internal void Restore(byte pendingEvents)
    {
        byte events = (byte)(pendingEvents & ~PowerButtonEvent);
        if (events != 0)
        {
            Raise(events);
        }
    }

    public void Read(IMmioInitiator initiator, ulong offset, Span<byte> data)
    {
        data.Clear();
        if (offset == Events)
        {
            // Reading takes the events. One that comes later raises the line again.
            lock (_lock)
            {
                data[0] = _events;
                _events = 0;
                line.Set(isHigh: false);
            }
        }
    }

    public void Write(IMmioInitiator initiator, ulong offset, ReadOnlySpan<byte> data)
    {
        bool isSleep = offset == SleepControl
            && (data[0] & SleepEnable) != 0
            && (data[0] >> SleepTypeShift & SleepTypeMask) == AcpiTables.PowerOffType;

        // Kernels made for QEMU write to where its chipset has the register, without asking ACPI.
        bool isQemuSleep = offset == Events && data.Length == sizeof(ushort) && BinaryPrimitives.ReadUInt16LittleEndian(data) == QemuSleepEnable;
        if (isSleep || isQemuSleep)
        {
            onPowerOff();
        }
    }

    private void Raise(byte events)
    {
        lock (_lock)
        {
            _events |= events;

            // The interrupt is edge-triggered: a line that is high already has to fall first.
            line.Set(isHigh: false);
            line.Set(isHigh: true);
        }
    }
}
