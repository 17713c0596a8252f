using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Kvm.Tests.Testing;

/// <summary>The contract facts of the class boot a Linux kernel, which takes hardware for ring 0, the kernel and a program to run on it.</summary>
[AttributeUsage(AttributeTargets.Class)]
public sealed class RequiresLinuxKernelAttribute : Attribute, IRequirement
{
    private const string KernelVariable = "UNIKRAFT_TEST_KERNEL";
    private const string GenerationKernelVariable = "UNIKRAFT_TEST_VMGENID_KERNEL";
    private const string BusyboxVariable = "UNIKRAFT_TEST_BUSYBOX";
    private const string ModulesVariable = "UNIKRAFT_TEST_MODULES";

    /// <summary>The tool of the host that checks ext4 file systems.</summary>
    internal const string FileSystemChecker = "/sbin/e2fsck";

    /// <inheritdoc/>
    public string? UnmetReason
    {
        get
        {
            if (!Directory.Exists("/sys/module/kvm_amd") && !Directory.Exists("/sys/module/kvm_intel"))
            {
                return "this host does not virtualise ring 0 in hardware; eng/svm-lab does";
            }

            string[] missing = [.. new[] { KernelVariable, GenerationKernelVariable, BusyboxVariable, ModulesVariable }.Where(static name => !Path.Exists(Environment.GetEnvironmentVariable(name)))];
            return missing.Length > 0
                ? $"{string.Join(" and ", missing)} must name a kernel image, one with CONFIG_VMGENID, a static busybox and a folder of modules; eng/svm-lab sets them"
                : File.Exists(FileSystemChecker)
                    ? null
                    : $"there is no {FileSystemChecker}; install e2fsprogs";
        }
    }

    /// <summary>The file of a module that belongs to the kernel.</summary>
    internal static string Module(string name) => Path.Combine(Environment.GetEnvironmentVariable(ModulesVariable)!, $"{name}.ko");

    /// <summary>The file of the kernel.</summary>
    internal static string Kernel => Environment.GetEnvironmentVariable(KernelVariable)!;

    /// <summary>The file of the only program of most guests.</summary>
    internal static string Busybox => Environment.GetEnvironmentVariable(BusyboxVariable)!;

    internal static byte[] ReadKernel() => File.ReadAllBytes(Kernel);

    /// <summary>A kernel that has a driver for the generation id, and needs no modules to boot.</summary>
    internal static byte[] ReadGenerationKernel() => File.ReadAllBytes(Environment.GetEnvironmentVariable(GenerationKernelVariable)!);

    internal static byte[] ReadBusybox() => File.ReadAllBytes(Busybox);
}
