using System.Buffers;
using Unikraft.Platform;

// A host that is killed while its guest writes: DIRECTORY IMAGE. Prints what the guest prints, and clones the volume under it all the time.
await using IUnikraftPlatform platform = new UnikraftPlatformBuilder().Configure(options => options.VolumeDirectory = args[0]).UseKvm().Build();
if (!platform.Volumes.List().Any(volume => string.Equals(volume.Name, "data", StringComparison.Ordinal)))
{
    await platform.Volumes.CreateAsync(new CreateVolumeRequest { Name = "data", SizeMb = 16, Filesystem = VolumeFilesystem.None });
}

Instance instance = await platform.Instances.CreateAsync(new CreateInstanceRequest
{
    Image = args[1],
    Args = ["--load", "8"],
    MemoryMb = 16,
    Volumes = [new InstanceVolume { Volume = "data", At = "/data" }],
});
Task relaying = RelayAsync();
Task cloning = CloneAsync();
await Task.WhenAny(relaying, cloning);
await relaying;
await cloning;
return 1;

async Task RelayAsync()
{
    await using IInstanceConsole console = platform.Instances.AttachConsole(instance.Uuid, new ConsoleOptions { FromStart = true });
    await using Stream output = Console.OpenStandardOutput();
    while (true)
    {
        var read = await console.Output.ReadAsync();
        if (read.IsCompleted)
        {
            return;
        }

        await output.WriteAsync(read.Buffer.ToArray());
        await output.FlushAsync();
        console.Output.AdvanceTo(read.Buffer.End);
    }
}

async Task CloneAsync()
{
    string? last = null;
    for (int i = 0; ; i++)
    {
        string name = $"clone-{Guid.NewGuid():N}";
        await platform.Volumes.CloneAsync("data", new CloneVolumeRequest { Name = name });
        if (last is not null && i % 3 != 0)
        {
            await platform.Volumes.DeleteAsync(last);
        }

        last = name;
        Instance branch = await platform.Instances.CreateAsync(new CreateInstanceRequest { BranchFrom = instance.Uuid, Autostart = false });
        await platform.Instances.DeleteAsync(branch.Uuid);
    }
}
