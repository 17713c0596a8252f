namespace Unikraft.Platform.Kvm.Interop;

/// <summary>Constants of <c>linux/kvm.h</c>. Names follow the header; a test compares every one with it.</summary>
internal static class KvmConstants
{
    internal const int ApiVersion = 12;

    internal const nuint GetApiVersion = 0xAE00;
    internal const nuint CreateVm = 0xAE01;
    internal const nuint CheckExtension = 0xAE03;
    internal const nuint GetVcpuMmapSize = 0xAE04;
    internal const nuint GetSupportedCpuid = 0xC008AE05;
    internal const nuint CreateVcpu = 0xAE41;
    internal const nuint GetDirtyLog = 0x4010AE42;
    internal const nuint SetUserMemoryRegion = 0x4020AE46;
    internal const nuint SetTssAddr = 0xAE47;
    internal const nuint SetIdentityMapAddr = 0x4008AE48;
    internal const nuint CreateIrqchip = 0xAE60;
    internal const nuint IrqLine = 0x4008AE61;
    internal const nuint GetMsrIndexList = 0xC004AE02;
    internal const nuint GetIrqchip = 0xC208AE62;
    internal const nuint SetIrqchip = 0x8208AE63;
    internal const uint IrqchipIoapic = 2;
    internal const nuint CreatePit2 = 0x4040AE77;
    internal const nuint GetPit2 = 0x8070AE9F;
    internal const nuint SetPit2 = 0x4070AEA0;
    internal const nuint SetClock = 0x4030AE7B;
    internal const nuint GetClock = 0x8030AE7C;
    internal const nuint GetLapic = 0x8400AE8E;
    internal const nuint SetLapic = 0x4400AE8F;
    internal const nuint GetMpState = 0x8004AE98;
    internal const nuint SetMpState = 0x4004AE99;
    internal const nuint KvmclockCtrl = 0xAEAD;
    internal const nuint Run = 0xAE80;
    internal const nuint GetRegs = 0x8090AE81;
    internal const nuint SetRegs = 0x4090AE82;
    internal const nuint GetSregs = 0x8138AE83;
    internal const nuint SetSregs = 0x4138AE84;
    internal const nuint GetMsrs = 0xC008AE88;
    internal const nuint SetMsrs = 0x4008AE89;
    internal const nuint SetCpuid2 = 0x4008AE90;
    internal const nuint Nmi = 0xAE9A;
    internal const nuint GetVcpuEvents = 0x8040AE9F;
    internal const nuint SetVcpuEvents = 0x4040AEA0;
    internal const nuint GetDebugregs = 0x8080AEA1;
    internal const nuint SetDebugregs = 0x4080AEA2;
    internal const nuint EnableCap = 0x4068AEA3;
    internal const nuint SetTscKhz = 0xAEA2;
    internal const nuint GetTscKhz = 0xAEA3;
    internal const nuint GetXsave = 0x9000AEA4;
    internal const nuint SetXsave = 0x5000AEA5;
    internal const nuint GetXcrs = 0x8188AEA6;
    internal const nuint SetXcrs = 0x4188AEA7;
    internal const nuint ClearDirtyLog = 0xC018AEC0;

    internal const int CapUserMemory = 3;
    internal const int CapMaxVcpus = 66;
    internal const int CapVcpuEvents = 41;
    internal const int CapDebugregs = 50;
    internal const int CapXsave = 55;
    internal const int CapXcrs = 56;
    internal const int CapTscControl = 60;
    internal const int CapTscDeadlineTimer = 72;
    internal const int CapSyncRegs = 74;
    internal const int CapImmediateExit = 136;
    internal const int CapManualDirtyLogProtect2 = 168;

    internal const ulong SyncRegs = 1;
    internal const ulong SyncSregs = 2;
    internal const ulong SyncEvents = 4;

    internal const uint PitSpeakerDummy = 1;

    internal const uint MemLogDirtyPages = 1;
    internal const ulong DirtyLogManualProtectEnable = 1;

    internal const uint ExitUnknown = 0;
    internal const uint ExitIo = 2;
    internal const uint ExitHlt = 5;
    internal const uint ExitMmio = 6;
    internal const uint ExitShutdown = 8;
    internal const uint ExitFailEntry = 9;
    internal const uint ExitIntr = 10;
    internal const uint ExitInternalError = 17;

    internal const uint InternalErrorEmulation = 1;

    internal const byte ExitIoOut = 1;
}
