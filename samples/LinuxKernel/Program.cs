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
    Vcpus = rest is [_, string vcpus] ? int.Parse(vcpus, System.Globalization.CultureInfo.InvariantCulture) : 1,
    Autostart = false,
});

using CancellationTokenSource ended = new();
await using IInstanceConsole console = platform.Instances.AttachConsole(instance.Uuid, new ConsoleOptions { FromStart = true });
using TerminalMode terminal = TerminalMode.EnterRaw();
Task output = console.Output.CopyToAsync(Console.OpenStandardOutput(), ended.Token);
Task input = Console.OpenStandardInput().CopyToAsync(console.Input.AsStream(), ended.Token);
await platform.Instances.StartAsync(instance.Uuid);
Instance stopped = await platform.Instances.WaitAsync(instance.Uuid, InstanceState.Stopped, Timeout.InfiniteTimeSpan);
await ended.CancelAsync();

// A read of the terminal under way cannot be cancelled: it must not keep the program.
await Task.WhenAny(Task.WhenAll(output, input), Task.Delay(TimeSpan.FromSeconds(1), TimeProvider.System));
await Console.Out.WriteLineAsync($"\r\n{stopped.Name} has stopped: {stopped.StopReason}, exit code {stopped.ExitCode?.ToString(System.Globalization.CultureInfo.InvariantCulture) ?? "none"}\r");
return 0;
