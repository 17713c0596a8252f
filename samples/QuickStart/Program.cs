using QuickStart;
using Unikraft.Platform;
using Unikraft.Platform.Kvm;

TimeProvider time = TimeProvider.System;
Transcript transcript = new(time);
long start = time.GetTimestamp();
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
    transcript.Warn($"KVM cannot be used: {kvm.Message}");
    transcript.Warn("IN-MEMORY BACKEND: scripted guests in place of microVMs. Times say nothing about KVM.");
    builder.UseInMemory();
}

await using IUnikraftPlatform platform = builder.Build();
transcript.Fact("backend", $"{platform.Hypervisor.Name}: {platform.Hypervisor.Description}");
try
{
    await new Story(platform, transcript, cancellation.Token).TellAsync();
}
catch (OperationCanceledException) when (cancellation.IsCancellationRequested)
{
    transcript.Warn("Interrupted.");
    return 130;
}

transcript.Chapter($"Done in {Transcript.Span(time.GetElapsedTime(start))}");
return 0;
