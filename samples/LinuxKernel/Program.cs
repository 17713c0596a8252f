using System.Globalization;
using LinuxKernel;
using Unikraft.Platform;
using Unikraft.Platform.Kvm;

// Boots a Linux kernel with busybox as its only program, and attaches its console to the terminal.
// The host needs KVM on VMX or SVM: a kernel runs at ring 0.
if (args is not [string kernel, .. string[] rest] || rest.Length > 2)
{
    await Console.Error.WriteLineAsync("usage: LinuxKernel KERNEL [BUSYBOX [VCPUS]]   (a static busybox; default /bin/busybox, 1 vCPU)");
    return 2;
}

byte[] initrd = Initramfs.Build(await File.ReadAllBytesAsync(rest is [string busybox, ..] ? busybox : "/bin/busybox"));
GuestImageContent content = new(await File.ReadAllBytesAsync(kernel)) { Initrd = initrd, CommandLine = "console=ttyS0 panic=-1 quiet" };

UnikraftPlatformBuilder builder = new();
builder.UseKvm();
await using IUnikraftPlatform platform = builder.Build();
Instance instance = await platform.Instances.CreateAsync(new CreateInstanceRequest
{
    Name = "linux",
    Image = GuestImage.FromContent(kernel, content),
    MemoryMb = 256,
    Vcpus = rest is [_, string vcpus] ? int.Parse(vcpus, CultureInfo.InvariantCulture) : 1,
    Autostart = false,
});

Instance stopped;
await using (IInstanceConsole console = platform.Instances.AttachConsole(instance.Uuid, new ConsoleOptions { FromStart = true }))
using (TerminalMode.EnterRaw())
{
    Task output = console.Output.CopyToAsync(Console.OpenStandardOutput());

    // A read of the terminal cannot be cancelled; what is typed after the end goes nowhere.
    _ = Console.OpenStandardInput().CopyToAsync(console.Input.AsStream());
    await platform.Instances.StartAsync(instance.Uuid);
    stopped = await platform.Instances.WaitAsync(instance.Uuid, InstanceState.Stopped, Timeout.InfiniteTimeSpan);

    // The output of a deleted instance ends, behind its last byte.
    await platform.Instances.DeleteAsync(instance.Uuid);
    await output;
}

await Console.Out.WriteLineAsync($"{stopped.Name} has stopped: {stopped.StopReason}, exit code {stopped.ExitCode?.ToString(CultureInfo.InvariantCulture) ?? "none"}");
return 0;
