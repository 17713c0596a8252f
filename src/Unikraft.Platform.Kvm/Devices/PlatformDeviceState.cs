namespace Unikraft.Platform.Kvm.Devices;

/// <summary>What a snapshot holds of the platform device.</summary>
/// <param name="InitLevel">Where the guest was in its life.</param>
/// <param name="IsShuttingDown">Whether it was shutting down.</param>
/// <param name="HasReachedMain">Whether main was reached.</param>
/// <param name="ExitCode">The exit code of the app, if it had left main.</param>
/// <param name="ConsoleInput">Input that waited for the guest.</param>
/// <param name="Monotonic">The monotonic clock, in nanoseconds.</param>
internal sealed record PlatformDeviceState(
    int InitLevel,
    bool IsShuttingDown,
    bool HasReachedMain,
    int? ExitCode,
    byte[] ConsoleInput,
    ulong Monotonic);
