using Unikraft.Platform;

namespace QuickStart;

/// <summary>The life of a few microVMs, told while it happens.</summary>
internal sealed class Story(IUnikraftPlatform platform, Transcript transcript, CancellationToken cancellationToken)
{
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(10);

    private IInstanceManager Instances => platform.Instances;

    public async Task TellAsync()
    {
        await BootAsync();
        await CheckpointAsync();
        await BranchAsync();
        await LoadAsync();
        await VolumeAsync();
        await CrashAsync();
        await StopAsync();
    }

    private static GuestImage Image(string guest) => Path.Combine(AppContext.BaseDirectory, "guests", guest + ".elf");

    private async Task VolumeAsync()
    {
        transcript.Chapter("Volume: a key-value store on a disk, which a branch gets a copy of at once");
        Volume volume = await platform.Volumes.CreateAsync(
            new CreateVolumeRequest { Name = "store", SizeMb = 1024, Filesystem = VolumeFilesystem.None },
            cancellationToken);
        Instance kv = await Instances.CreateAsync(
            new CreateInstanceRequest
            {
                Name = "kv",
                Image = Image("kv"),
                MemoryMb = 64,
                Volumes = [new InstanceVolume { Volume = volume.Uuid, At = "/data" }],
                WaitTimeout = Patience,
            },
            cancellationToken);
        await using GuestTerminal source = Attach("kv", fromStart: true);
        await TellAsync("kv", source, "put season summer", "ok ");
        Instance copy = await Instances.CreateAsync(new CreateInstanceRequest { Name = "copy", BranchFrom = kv.Uuid, WaitTimeout = Patience }, cancellationToken);
        await using GuestTerminal branch = Attach("copy");
        await TellAsync("copy", branch, "put season winter", "ok ");
        await TellAsync("kv", source, "get season", "value=");
        await TellAsync("copy", branch, "get season", "value=");
        await TellAsync("copy", branch, "check", "check ");
        transcript.Fact("volumes", string.Join(", ", platform.Volumes.List().Select(each =>
            $"{each.Name ?? "(of the branch)"} {each.SizeMb} MiB {each.State.ToText()}, {each.Depth} images")));
        await Instances.DeleteAsync(copy.Uuid, cancellationToken);
        await Instances.DeleteAsync(kv.Uuid, cancellationToken);
    }

    private async Task TellAsync(string name, GuestTerminal terminal, string command, string answer)
    {
        await terminal.WriteLineAsync(command, cancellationToken);
        transcript.Guest(name, $"{command}: {await terminal.ReadLineAsync(answer, cancellationToken)}");
    }

    private GuestTerminal Attach(string instance, bool fromStart = false) =>
        new(Instances.AttachConsole(instance, new ConsoleOptions { FromStart = fromStart }));

    private async Task BootAsync()
    {
        transcript.Chapter("Boot: a guest with a random nonce in its memory, which ticks ten times a second");
        CreateInstanceRequest request = new()
        {
            Image = Image("counter"),
            Args = ["--period-ms", "100", "--pages", "50"],
            MemoryMb = 64,
            WaitTimeout = Patience,
        };
        Instance first = await Instances.CreateAsync(request, cancellationToken);
        Instance source = await Instances.CreateAsync(request with { Name = "source" }, cancellationToken);
        transcript.Fact("running", $"{source.Vcpus} vCPU, {source.MemoryMb} MiB, main reached in {Transcript.Span(source.BootTime!.Value)}");
        transcript.Fact("", $"(the first machine of the process, {first.Name}: {Transcript.Span(first.BootTime!.Value)}, most of it the JIT compiler)");
        await Instances.DeleteAsync(first.Uuid, cancellationToken);

        await using GuestTerminal terminal = Attach("source", fromStart: true);
        await ShowAsync("source", terminal, lines: 3);
    }

    private async Task CheckpointAsync()
    {
        transcript.Chapter("Checkpoint: taken while the guest runs");
        await using GuestTerminal terminal = Attach("source");
        await TakeCheckpointAsync("source", "early");
        await ShowAsync("source", terminal, lines: 2);
    }

    private async Task BranchAsync()
    {
        transcript.Chapter("Branch: two lives from one moment on");
        await using GuestTerminal source = Attach("source");
        await source.WriteLineAsync("mark both", cancellationToken);
        await source.ReadLineAsync("nonce=", cancellationToken);
        await Instances.CreateAsync(
            new CreateInstanceRequest { Name = "branch", BranchFrom = "source", WaitTimeout = Patience },
            cancellationToken);
        await using GuestTerminal branch = Attach("branch");
        transcript.Say("Same nonce and ticks that go on in both; only the generation id tells them apart:");
        for (int i = 0; i < 3; i++)
        {
            await ShowAsync("source", source, lines: 1);
            await ShowAsync("branch", branch, lines: 1);
        }

        transcript.Say("What one writes, the other does not see:");
        transcript.Guest("branch", await branch.AskAsync("show", "mark=", cancellationToken));
        await branch.WriteLineAsync("mark mine", cancellationToken);
        transcript.Guest("branch", await branch.AskAsync("show", "mark=", cancellationToken));
        transcript.Guest("source", await source.AskAsync("show", "mark=", cancellationToken));
    }

    private async Task LoadAsync()
    {
        transcript.Chapter("Load: the source is deleted, its checkpoint goes on");
        await Instances.DeleteAsync("source", cancellationToken);
        Instance loaded = await Instances.CreateAsync(
            new CreateInstanceRequest { Name = "loaded", Checkpoint = "early", WaitTimeout = Patience },
            cancellationToken);
        transcript.Fact("running", $"restored in {Transcript.Span(loaded.BootTime!.Value)}");
        await using (GuestTerminal terminal = Attach("loaded", fromStart: true))
        {
            await ShowAsync("loaded", terminal, lines: 2);
        }

        await TakeCheckpointAsync("loaded", "late");
        transcript.Fact("history", string.Join(" <- ", Instances.GetHistory("loaded").Select(checkpoint => checkpoint.Name)));
    }

    private async Task CrashAsync()
    {
        transcript.Chapter("Crash: out of memory, decoded, and back by the restart policy");
        await Instances.CreateAsync(
            new CreateInstanceRequest
            {
                Name = "greedy",
                Image = Image("crash"),
                Args = ["oom"],
                MemoryMb = 32,
                RestartPolicy = RestartPolicy.OnFailure,
                Autostart = false,
            },
            cancellationToken);
        await using GuestTerminal terminal = Attach("greedy", fromStart: true);
        Task<Instance> running = Instances.WaitAsync("greedy", InstanceState.Running, Patience, cancellationToken);
        await Instances.StartAsync("greedy", cancellationToken);
        await running;
        Instance crashed = await Instances.WaitAsync("greedy", InstanceState.Stopped, Patience, cancellationToken);
        transcript.Guest("greedy", await terminal.ReadLineAsync("crashing", cancellationToken));
        ShowStop(crashed);

        transcript.Guest("greedy", await terminal.ReadLineAsync("crashing", cancellationToken));
        Instance back = await Instances.WaitAsync("greedy", InstanceState.Stopped, Patience, cancellationToken);
        transcript.Fact(
            "came back",
            $"at once, and crashed again; attempt {back.Restart!.Attempt} follows after {Transcript.Span((back.Restart.NextAt - back.StoppedAt)!.Value)}");
        await Instances.StopAsync("greedy", cancellationToken: cancellationToken);
        transcript.Say("A stop by the user ends the restart sequence.");
    }

    private async Task StopAsync()
    {
        transcript.Chapter("Stop: asked to, and forced to");
        ShowStop(await Instances.StopAsync("loaded", cancellationToken: cancellationToken));
        ShowStop(await Instances.StopAsync("branch", StopRequest.Forced, cancellationToken));
    }

    private async Task TakeCheckpointAsync(string instance, string name)
    {
        Checkpoint checkpoint = await platform.Checkpoints.CreateAsync(
            new CreateCheckpointRequest { From = instance, Name = name, WaitTimeout = Patience },
            cancellationToken);
        transcript.Fact(
            checkpoint.Name,
            $"{instance} stood still for {Transcript.Span(checkpoint.Pause!.Value)}; {Transcript.Bytes(checkpoint.StoredBytes)} stored");
    }

    private async Task ShowAsync(string name, GuestTerminal terminal, int lines)
    {
        for (int i = 0; i < lines; i++)
        {
            transcript.Guest(name, await terminal.ReadLineAsync("nonce=", cancellationToken));
        }
    }

    private void ShowStop(Instance instance)
    {
        StopReason reason = instance.StopReason!.Value;
        transcript.Fact($"{instance.Name}:", $"stop_reason {reason.ToMask()} ({StopReasons.Encode(reason)})");
        if (instance.ExitCode is { } exitCode)
        {
            transcript.Fact("", $"exit_code   {exitCode}");
        }

        if (instance.StopCode is { } stopCode)
        {
            transcript.Fact("", $"stop_code   {stopCode} ({stopCode:D}): {stopCode.Describe()}");
        }

        if (instance.Fault is { } fault)
        {
            transcript.Fact("", $"fault       {fault}");
        }
    }
}
