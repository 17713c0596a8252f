using System.Diagnostics;
using System.Globalization;
using Unikraft.Platform;
using Unikraft.Platform.CrashChild;
using Unikraft.Platform.InMemory;

// hold DIRECTORY: takes the data directory and waits to be told to let go.
// run GUESTS OPERATIONS {DIRECTORY SEED POINT NUMBER}...: does random operations on each directory, all at once, and says what it does and what was acknowledged, a line each with the
// number of the directory before it. GUESTS is the folder of the guests for real machines, or "memory". Each directory stops at its point; when all have stopped or are through, the
// process is killed.
if (args[0] is "hold")
{
    try
    {
        await using IUnikraftPlatform held = new UnikraftPlatformBuilder()
            .Configure(options => options.DataDirectory = args[1])
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
    catch (StorageException error)
    {
        Console.WriteLine(error.Message);
        return 0;
    }
}

string? guests = args[1] is "memory" ? null : args[1];
int operations = int.Parse(args[2], CultureInfo.InvariantCulture);
int directories = (args.Length - 3) / 4;
CountdownEvent under = new(directories);
Lock output = new();

// Those that have stopped keep theirs.
ThreadPool.SetMinThreads(16 * directories, 16);
for (int i = 0; i < directories; i++)
{
    int number = i;
    string[] words = args[(3 + (4 * i))..(7 + (4 * i))];
    _ = Task.Run(() => RunAsync(number, words[0], int.Parse(words[1], CultureInfo.InvariantCulture), words[2], int.Parse(words[3], CultureInfo.InvariantCulture)));
}

under.Wait();

// SIGKILL, as if from outside: nothing of the runtime runs any more.
using Process self = Process.GetCurrentProcess();
self.Kill();
new ManualResetEventSlim().Wait();
return 1;

void Say(int number, string line)
{
    lock (output)
    {
        Console.WriteLine($"{number} {line}");
    }
}

async Task RunAsync(int number, string directory, int seed, string point, int call)
{
    try
    {
        KillSwitch kill = new(point, call, line => Say(number, line), () => under.Signal());
        Script script = new(directory, guests, kill, line => Say(number, line));
        await script.RunAsync(seed, operations);
        Say(number, $"end {kill.Calls}");
        under.Signal();
    }
    catch (Exception error)
    {
        Say(number, $"failed {error.ToString().ReplaceLineEndings(" | ")}");
        under.Signal();
    }
}
