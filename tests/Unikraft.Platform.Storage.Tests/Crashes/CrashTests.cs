using System.Diagnostics;
using Unikraft.Platform.InMemory;
using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Storage.Tests.Crashes;

/// <summary>Real processes that are killed, and what they leave behind. How many is set by the environment.</summary>
public sealed class CrashTests : IDisposable
{
    private const string KillPoints = "UNIKRAFT_KILL_POINTS";
    private const string KillTimes = "UNIKRAFT_KILL_TIMES";
    private const int Operations = 40;

    private readonly string _folder = Directory.CreateTempSubdirectory("crashes-").FullName;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [Fact]
    public async Task A_process_killed_at_a_call_to_the_disk_loses_nothing_that_was_acknowledged()
    {
        int points = Count(KillPoints, otherwise: 12);
        await Parallel.ForAsync(0, points, new ParallelOptions { MaxDegreeOfParallelism = 2 }, async (point, _) =>
        {
            CrashModel model = new();
            string directory = Path.Combine(_folder, $"point-{point}");
            // Each seed is another sequence of calls; the calls are spread over the whole of it, the opening included.
            long killAt = 1 + (point * 7 % 400);
            using Child child = Child.Run(directory, seed: point / 50, Operations, killAt);
            await ReadAsync(child, model);
            await CheckAsync(directory, model, $"point {killAt} of seed {point / 50}");
            DeleteIfThere(directory);
        });
    }

    [Fact]
    public async Task A_process_killed_at_any_time_loses_nothing_that_was_acknowledged()
    {
        int times = Count(KillTimes, otherwise: 6);
        await Parallel.ForAsync(0, times, new ParallelOptions { MaxDegreeOfParallelism = 2 }, async (time, token) =>
        {
            CrashModel model = new();
            string directory = Path.Combine(_folder, $"time-{time}");
            Random random = new(time);
            using Child child = Child.Run(directory, seed: 1000 + time, operations: 1_000_000, killAt: -1);
            int lines = random.Next(1, 60);
            while (lines-- > 0 && await child.Output.ReadLineAsync(token) is { } line)
            {
                model.Read(line);
            }

            // Somewhere in the operation that follows.
            for (int spin = random.Next(200_000); spin > 0; spin--)
            {
                Thread.SpinWait(10);
            }

            child.Process.Kill();
            await ReadAsync(child, model);
            await CheckAsync(directory, model, $"time {time}");
            DeleteIfThere(directory);
        });
    }

    [Fact]
    public async Task Of_eight_processes_one_gets_the_directory()
    {
        string directory = Path.Combine(_folder, "race");
        for (int round = 0; round < 2; round++)
        {
            Child[] children = [.. Enumerable.Range(0, 8).Select(_ => Child.Hold(directory))];
            try
            {
                string?[] answers = await Task.WhenAll(children.Select(child => child.Output.ReadLineAsync().WaitAsync(TimeSpan.FromSeconds(60))));
                Assert.Equal(1, answers.Count(answer => answer is "held"));
                Assert.Equal(7, answers.Count(answer => answer is "refused"));
                // The one that has it is killed, which frees it for the next round.
                children[Array.IndexOf(answers, "held")].Process.Kill();
            }
            finally
            {
                foreach (Child child in children)
                {
                    child.Dispose();
                }
            }
        }
    }

    private static int Count(string variable, int otherwise) =>
        int.TryParse(Environment.GetEnvironmentVariable(variable), out int count) ? count : otherwise;

    // A process that was killed early has made none.
    private static void DeleteIfThere(string directory)
    {
        if (Directory.Exists(directory))
        {
            Directory.Delete(directory, recursive: true);
        }
    }

    private static async Task ReadAsync(Child child, CrashModel model)
    {
        while (await child.Output.ReadLineAsync().WaitAsync(TimeSpan.FromSeconds(60)) is { } line)
        {
            model.Read(line);
        }

        await child.Process.WaitForExitAsync();
    }

    private static async Task CheckAsync(string directory, CrashModel model, string context)
    {
        if (!Directory.Exists(directory))
        {
            return;
        }

        await using IUnikraftPlatform platform = new UnikraftPlatformBuilder()
            .Configure(options => options.DataDirectory = directory)
            .UseInMemory()
            .Build();
        model.Check(platform, context);
        Assert.Empty(await platform.Data!.VerifyAsync());
        foreach (Checkpoint checkpoint in platform.Checkpoints.List())
        {
            await platform.Instances.CreateAsync(new CreateInstanceRequest { Checkpoint = checkpoint.Uuid, WaitTimeout = Timeout.InfiniteTimeSpan });
        }
    }

    private sealed class Child : IDisposable
    {
        private Child(params string[] arguments)
        {
            string program = Path.Combine(AppContext.BaseDirectory, "Unikraft.Platform.CrashChild.Tests.dll");
            Process = Process.Start(new ProcessStartInfo(Environment.ProcessPath!.EndsWith("dotnet", StringComparison.Ordinal) ? Environment.ProcessPath : "dotnet", [program, .. arguments])
            {
                UseShellExecute = false,
                RedirectStandardInput = true,
                RedirectStandardOutput = true,
                Environment = { ["DOTNET_TieredPGO"] = "0", ["DOTNET_gcServer"] = "0" },
            })!;
        }

        internal Process Process { get; }

        internal StreamReader Output => Process.StandardOutput;

        internal static Child Run(string directory, int seed, int operations, long killAt) =>
            new("run", directory, $"{seed}", $"{operations}", $"{killAt}");

        internal static Child Hold(string directory) => new("hold", directory);

        public void Dispose()
        {
            if (!Process.HasExited)
            {
                Process.Kill();
                Process.WaitForExit();
            }

            Process.Dispose();
        }
    }
}
