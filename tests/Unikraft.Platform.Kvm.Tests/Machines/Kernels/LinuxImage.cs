using System.Text;
using Unikraft.Platform.Kvm.Tests.Testing;

namespace Unikraft.Platform.Kvm.Tests.Machines.Kernels;

/// <summary>A stock kernel with busybox and nothing else.</summary>
internal static class LinuxImage
{
    /// <summary>The image with a script as its first program.</summary>
    /// <param name="init">The script.</param>
    /// <param name="modules">Files of modules, found at <c>/modules</c>.</param>
    internal static GuestImageContent WithInit(string init, params ReadOnlySpan<string> modules)
    {
        CpioArchive archive = new CpioArchive()
            .AddFolder("bin")
            .AddFolder("dev")
            .AddFolder("proc")
            .AddFolder("sys")
            .AddFolder("tmp")
            .AddFolder("mnt")
            .AddFolder("modules")
            .AddDevice("dev/console", 5, 1)
            .AddProgram("bin/busybox", RequiresLinuxKernelAttribute.ReadBusybox())
            .AddProgram("bin/linux-reseed", GuestImages.ReadLinuxProgram("reseed"))
            .AddProgram("bin/linux-writer", GuestImages.ReadLinuxProgram("writer"))
            .AddProgram("init", Encoding.ASCII.GetBytes(init));
        foreach (string module in modules)
        {
            archive.AddProgram($"modules/{Path.GetFileName(module)}", File.ReadAllBytes(module));
        }

        return new GuestImageContent(RequiresLinuxKernelAttribute.ReadKernel()) { Initrd = archive.Build() };
    }
}
