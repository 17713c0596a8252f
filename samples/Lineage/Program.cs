using Lineage;
using Spectre.Console;
using Unikraft.Platform;
using Unikraft.Platform.Kvm;

// --plain: no colours and no redrawing, as for a log.
bool isPlain = args.Contains("--plain", StringComparer.Ordinal) || Console.IsOutputRedirected;
IAnsiConsole console = AnsiConsole.Create(new AnsiConsoleSettings
{
    Ansi = isPlain ? AnsiSupport.No : AnsiSupport.Detect,
    Interactive = isPlain ? InteractionSupport.No : InteractionSupport.Detect,
});
if (isPlain)
{
    console.Profile.Width = 150;
}

using CancellationTokenSource cancellation = new();
Console.CancelKeyPress += (_, interrupt) =>
{
    interrupt.Cancel = true;
    cancellation.Cancel();
};

UnikraftPlatformBuilder builder = new();
KvmSupport kvm = KvmProbe.Check();
if (kvm.IsUsable)
{
    builder.UseKvm();
}
else
{
    console.MarkupLineInterpolated($"[yellow]KVM cannot be used: {kvm.Message}[/]");
    console.MarkupLine("[yellow]In-memory backend: scripted guests in place of microVMs.[/]");
    builder.UseInMemory();
}

await using IUnikraftPlatform platform = builder.Build();
console.MarkupLineInterpolated($"backend: [bold]{platform.Hypervisor.Name}[/], {platform.Hypervisor.Description}");
try
{
    await new Story(platform, console, cancellation.Token).TellAsync();
}
catch (OperationCanceledException) when (cancellation.IsCancellationRequested)
{
    console.MarkupLine("[yellow]Interrupted.[/]");
    return 130;
}

return 0;
