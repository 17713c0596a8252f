namespace Unikraft.Platform.Contracts;

/// <summary>The kinds of the crash guest that end in a CPU exception, with the stop code the guest ABI gives each.</summary>
public static class CrashKinds
{
    /// <summary>The argument of the guest, the stop code, and the vector of the exception.</summary>
    public static TheoryData<string, string, int> Faults => new()
    {
        { "div0", "0x00007F02", 0 },
        { "ud", "0x00007F03", 6 },
        { "read-unmapped", "0x000E7F04", 14 },
        { "write-unmapped", "0x000E7F04", 14 },
        { "write-readonly", "0x000D7F07", 14 },
        { "exec-data", "0x000D7F07", 14 },
        { "stack", "0x000C7F05", 14 },
        { "oom", "0x000C7F04", 14 },
        { "gp", "0x000E7F05", 13 },
        { "syscall", "0x00007F03", 6 },
        { "jump-null", "0x000E7F04", 14 },
    };
}
