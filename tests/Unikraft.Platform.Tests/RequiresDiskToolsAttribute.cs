using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Tests;

/// <summary>The contract facts of the class need the tools of QEMU and of ext4, which CI installs.</summary>
[AttributeUsage(AttributeTargets.Class)]
public sealed class RequiresDiskToolsAttribute : Attribute, IRequirement
{
    private static readonly string[] Folders = [.. (Environment.GetEnvironmentVariable("PATH") ?? "").Split(':'), "/usr/sbin", "/sbin"];

    /// <inheritdoc/>
    public string? UnmetReason =>
        Array.Find((string[])["qemu-img", "qemu-io", "mkfs.ext4", "e2fsck"], static tool => !Array.Exists(Folders, folder => File.Exists(Path.Combine(folder, tool)))) is { } missing
            ? $"There is no {missing} on this machine: disk images and file systems are judged by nobody but the library. Install the packages qemu-utils and e2fsprogs."
            : null;
}
