using System.Runtime.InteropServices;
using Unikraft.Platform.Kvm.Interop;

namespace Unikraft.Platform.Kvm;

/// <summary>Finds out whether KVM can be used on this host.</summary>
public static class KvmProbe
{
    private static readonly (int Capability, string Name)[] Required =
    [
        (KvmConstants.CapUserMemory, "KVM_CAP_USER_MEMORY"),
        (KvmConstants.CapVcpuEvents, "KVM_CAP_VCPU_EVENTS"),
        (KvmConstants.CapDebugregs, "KVM_CAP_DEBUGREGS"),
        (KvmConstants.CapXsave, "KVM_CAP_XSAVE"),
        (KvmConstants.CapXcrs, "KVM_CAP_XCRS"),
        (KvmConstants.CapSyncRegs, "KVM_CAP_SYNC_REGS"),
        (KvmConstants.CapImmediateExit, "KVM_CAP_IMMEDIATE_EXIT"),
        (KvmConstants.CapManualDirtyLogProtect2, "KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2"),
    ];

    /// <summary>Opens the device, asks it for what the backend needs, and closes it again. Never throws.</summary>
    public static KvmSupport Check() => Check(KvmDevice.Path);

    /// <summary>The same for any path, so that a test can see every answer.</summary>
    internal static KvmSupport Check(string path)
    {
        if (!OperatingSystem.IsLinux() || RuntimeInformation.ProcessArchitecture != Architecture.X64)
        {
            return new KvmSupport(
                KvmProblem.UnsupportedHost,
                $"KVM needs Linux on x86-64; this is {RuntimeInformation.OSDescription} on {RuntimeInformation.ProcessArchitecture}.");
        }

        if (!File.Exists(path))
        {
            return new KvmSupport(
                KvmProblem.DeviceMissing,
                $"There is no {path}. Load the module (modprobe kvm_intel or kvm_amd), enable virtualisation in the firmware, or pass the device into the container.");
        }

        try
        {
            (int version, int[] values) = KvmDevice.Query(path, [.. Required.Select(static item => item.Capability)]);
            return Judge(version, values, path);
        }
        catch (HypervisorException error) when (!CanOpen(path))
        {
            return new KvmSupport(
                KvmProblem.PermissionDenied,
                $"This process may not open {path}: {error.Message} Add its user to the group that owns the device (usually kvm).");
        }
        catch (HypervisorException error)
        {
            return new KvmSupport(KvmProblem.DeviceFailed, $"{path} does not answer like KVM: {error.Message}");
        }
    }

    /// <summary>Judges the answers of a device.</summary>
    internal static KvmSupport Judge(int version, ReadOnlySpan<int> values, string path)
    {
        if (version != KvmConstants.ApiVersion)
        {
            return new KvmSupport(KvmProblem.ApiVersion, $"{path} has API version {version}; {KvmConstants.ApiVersion} is needed.");
        }

        for (int i = 0; i < Required.Length; i++)
        {
            if (values[i] == 0)
            {
                return new KvmSupport(
                    KvmProblem.MissingExtension,
                    $"{path} lacks {Required[i].Name}. Use a kernel of version 5.2 or newer.");
            }
        }

        return new KvmSupport(KvmProblem.None, $"KVM API version {version} at {path}");
    }

    private static bool CanOpen(string path)
    {
        try
        {
            File.OpenHandle(path, FileMode.Open, FileAccess.ReadWrite, FileShare.ReadWrite).Dispose();
            return true;
        }
        catch (UnauthorizedAccessException)
        {
            return false;
        }
    }
}
