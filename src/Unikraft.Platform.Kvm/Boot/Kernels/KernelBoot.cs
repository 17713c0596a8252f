using System.Text;

namespace Unikraft.Platform.Kvm.Boot.Kernels;

/// <summary>What a kernel is booted with, checked.</summary>
/// <param name="Image">The kernel.</param>
/// <param name="Initrd">Its initial RAM disk; empty for none.</param>
/// <param name="CommandLine">Its command line.</param>
internal sealed record KernelBoot(KernelImage Image, ReadOnlyMemory<byte> Initrd, string CommandLine)
{
    /// <summary>The command line with its NUL.</summary>
    /// <exception cref="InvalidRequestException">It is too long for this kernel, or contains a NUL.</exception>
    internal byte[] EncodeCommandLine()
    {
        if (CommandLine.Contains('\0', StringComparison.Ordinal))
        {
            throw new InvalidRequestException("The command line of a kernel cannot contain a NUL character.");
        }

        byte[] text = [.. Encoding.UTF8.GetBytes(CommandLine), 0];
        return text.Length - 1 <= Image.MaxCommandLine
            ? text
            : throw new InvalidRequestException(
                $"The command line has {text.Length - 1} bytes; the kernel '{Image.Name}' takes {Image.MaxCommandLine}. Pass fewer or shorter arguments.");
    }
}
