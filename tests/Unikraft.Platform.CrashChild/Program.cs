using Microsoft.Extensions.Logging.Abstractions;
using Unikraft.Platform;
using Unikraft.Platform.CrashChild;
using Unikraft.Platform.InMemory;
using Unikraft.Platform.Storage;

// hold DIRECTORY: takes the data directory and waits to be told to let go.
// run DIRECTORY SEED OPERATIONS KILL_AT: does random operations and says what it does and what was acknowledged, one line each, until it is killed.
string directory = args[1];
if (args[0] is "hold")
{
    try
    {
        await using IUnikraftPlatform held = new UnikraftPlatformBuilder()
            .Configure(options => options.DataDirectory = directory)
            .UseInMemory()
            .Build();
        Console.WriteLine("held");
        Console.ReadLine();
        return 0;
    }
    catch (DataDirectoryInUseException)
    {
        Console.WriteLine("refused");
        Console.ReadLine();
        return 0;
    }
}

Random random = new(int.Parse(args[2]));
int operations = int.Parse(args[3]);
long killAt = long.Parse(args[4]);
KillingFileLayer files = new(new HostFileLayer(directories: null), killAt);
await using UnikraftPlatform platform = new(
    new PlatformOptions { DataDirectory = directory, MinFreeDiskBytes = 0 },
    TimeProvider.System,
    NullLoggerFactory.Instance,
    context => new InMemoryHypervisor(new InMemoryHypervisorOptions(), context, files),
    files);
for (int i = 0; i < operations; i++)
{
    string name = $"n{random.Next(6)}";
    string operation = random.Next(8) switch
    {
        0 or 1 => $"instance {name}",
        2 => $"delete-instance {name}",
        3 or 4 => $"checkpoint {name} c{random.Next(6)}",
        5 => $"delete-checkpoint c{random.Next(6)}",
        6 => $"tag {name} t{i}",
        _ => $"load c{random.Next(6)} {name}",
    };
    Console.WriteLine($"begin {operation}");
    try
    {
        await DoAsync(operation.Split(' '));
        Console.WriteLine("done");
    }
    catch (PlatformException error)
    {
        Console.WriteLine($"refused {error.Code}");
    }
}

Console.WriteLine($"end {files.Calls}");
return 0;

Task DoAsync(string[] words) => words[0] switch
{
    "instance" => platform.Instances.CreateAsync(new CreateInstanceRequest
    {
        Name = words[1],
        Image = GuestImage.FromFile("/images/counter.elf"),
        Args = ["--period-ms", "0"],
        WaitTimeout = Timeout.InfiniteTimeSpan,
    }),
    "delete-instance" => platform.Instances.DeleteAsync(words[1]),
    "checkpoint" => platform.Checkpoints.CreateAsync(new CreateCheckpointRequest
    {
        From = words[1],
        Name = words[2],
        WaitTimeout = Timeout.InfiniteTimeSpan,
    }),
    "delete-checkpoint" => platform.Checkpoints.DeleteAsync(words[1]),
    "tag" => platform.Instances.PatchAsync(words[1], [new PatchOperation.SetTags(words[2])]),
    _ => platform.Instances.CreateAsync(new CreateInstanceRequest { Checkpoint = words[1], Name = words[2], WaitTimeout = Timeout.InfiniteTimeSpan }),
};
