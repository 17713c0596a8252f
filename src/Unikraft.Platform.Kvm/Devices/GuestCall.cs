namespace Unikraft.Platform.Kvm.Devices;

/// <summary>The calls of the guest ABI.</summary>
internal enum GuestCall
{
    Nop = 0,
    InitLevel = 1,
    ExitCode = 2,
    Stop = 3,
    PowerOff = 4,
    ConsoleWrite = 5,
    ConsoleRead = 6,
    Wait = 7,
    Clock = 8,
    Random = 9,
    Wake = 10,
    Template = 11,
    Fork = 12,
}
