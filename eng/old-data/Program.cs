using System.Buffers;
using System.Diagnostics;
using System.Text;
using Unikraft.Platform;

// DIRECTORY: fills a data directory with some of everything, and leaves what a killed process leaves: DIRECTORY.killed is a copy from before the end.
string directory = args[0];
string images = Directory.CreateDirectory(directory + ".images").FullName;
foreach (string guest in (string[])["counter", "kv"])
{
    File.WriteAllText(Path.Combine(images, guest + ".elf"), $"stands for the guest {guest}");
}

AutokillPolicy year = new(TimeSpan.FromDays(3650));
await using (IUnikraftPlatform platform = new UnikraftPlatformBuilder().Configure(options => (options.DataDirectory, options.MinFreeDiskBytes) = (directory, 0)).UseInMemory().Build())
{
    await CreateAsync(Request("counter") with { Name = "source", Tags = ["first", "second"], RestartPolicy = RestartPolicy.Always });
    await TickAsync("source");
    await CheckpointAsync(new CreateCheckpointRequest { From = "source", Name = "base", Tags = ["kept"], DeleteLock = true, Autokill = year });
    await TickAsync("source");
    await TickAsync("source");
    await CheckpointAsync(new CreateCheckpointRequest { From = "source", Name = "point" });
    await CreateAsync(new CreateInstanceRequest { Name = "loaded", Checkpoint = "base", DeleteLock = true });
    await TickAsync("loaded");
    await CheckpointAsync(new CreateCheckpointRequest { From = "loaded", Name = "later" });
    await CreateAsync(new CreateInstanceRequest { Name = "asleep", Checkpoint = "point" });
    await TickAsync("asleep");
    await platform.Instances.SuspendAsync("asleep");
    await CreateAsync(Request("counter") with { Name = "golden" });
    await TickAsync("golden");
    await platform.Templates.ConvertAsync("golden", year);
    await CreateAsync(new CreateInstanceRequest { Name = "clone", Template = "golden" });
    await CreateAsync(Request("counter") with { Name = "stopped", Autokill = year });
    await platform.Instances.StopAsync("stopped");
    await platform.Instances.CreateAsync(Request("counter") with { Name = "gone", Autostart = false });
    await platform.Instances.DeleteAsync("gone");

    await platform.Volumes.CreateAsync(new CreateVolumeRequest { Name = "data", SizeMb = 1, Filesystem = VolumeFilesystem.None, Tags = ["disk"], DeleteLock = true });
    await CreateAsync(Request("kv") with { Name = "worker", Volumes = [new InstanceVolume { Volume = "data", At = "/data" }] });
    await AskAsync("worker", "put colour blue", "ok");
    await CheckpointAsync(new CreateCheckpointRequest { From = "worker", Name = "both" });
    await AskAsync("worker", "put colour red", "ok");
    await platform.Volumes.CloneAsync("data", new CloneVolumeRequest { Name = "copy" });
    await AskAsync("worker", "put size 3", "ok");
    await platform.Volumes.CreateAsync(new CreateVolumeRequest { Name = "model", SizeMb = 1, Filesystem = VolumeFilesystem.None });
    await platform.Volumes.ConvertAsync("model");

    // Logs are written after a while.
    await Task.Delay(TimeSpan.FromSeconds(5));
    using Process copy = Process.Start("cp", ["-r", directory, directory + ".killed"]);
    await copy.WaitForExitAsync();

    Task CreateAsync(CreateInstanceRequest request) => platform.Instances.CreateAsync(request with { WaitTimeout = Timeout.InfiniteTimeSpan });

    Task CheckpointAsync(CreateCheckpointRequest request) => platform.Checkpoints.CreateAsync(request with { WaitTimeout = Timeout.InfiniteTimeSpan });

    Task TickAsync(string instance) => AskAsync(instance, "tick", "nonce=");

    async Task AskAsync(string instance, string line, string prefix)
    {
        await using IInstanceConsole console = platform.Instances.AttachConsole(instance);
        await console.Input.WriteAsync(Encoding.UTF8.GetBytes(line + "\n"));
        StringBuilder output = new();
        while (!output.ToString().Split('\n')[..^1].Any(answer => answer.StartsWith(prefix, StringComparison.Ordinal)))
        {
            var read = await console.Output.ReadAsync();
            output.Append(Encoding.UTF8.GetString(read.Buffer.ToArray()));
            console.Output.AdvanceTo(read.Buffer.End);
        }

        Console.WriteLine($"{instance}: {line}: {output.ToString().Trim()}");
    }
}

CreateInstanceRequest Request(string guest) =>
    new() { Image = GuestImage.FromFile(Path.Combine(images, guest + ".elf")), Args = guest is "counter" ? ["--period-ms", "0"] : [], Env = new Dictionary<string, string> { ["PLACE"] = "here" } };
