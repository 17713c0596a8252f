using System.Diagnostics;
using System.Globalization;
using Unikraft.Platform.Kvm.Tests.Testing;
using Unikraft.Platform.TestKit;
using ConsoleSession = Unikraft.Platform.Contracts.ConsoleSession;

namespace Unikraft.Platform.Kvm.Tests.Machines;

/// <summary>A host that is killed while its guest writes to a volume, again and again.</summary>
[RequiresKvm]
public sealed class HostCrashTests : IDisposable
{
    /// <summary>How often the host of one directory is killed: each leaves clones, and the next start takes longer.</summary>
    private const int CrashesOfDirectory = 20;

    private readonly JudgedFolder _folder = new();

    /// <summary>How often the host is killed; a thorough run sets it to hundreds.</summary>
    private static int Crashes =>
        int.TryParse(Environment.GetEnvironmentVariable("UNIKRAFT_HOST_CRASHES"), CultureInfo.InvariantCulture, out int count) ? count : Repetitions.Of(4);

    public void Dispose() => _folder.Dispose();

    /// <remarks>Two directories at once. Not in the SVM lab: more than a minute there for one host, and what a host has left on its disk knows nothing of the flavour of KVM.</remarks>
    [ContractFact]
    [Trait("Lab", "TooLong")]
    public Task Nothing_that_was_acknowledged_is_lost_when_the_host_is_killed() => Parallel.ForAsync(
        0,
        (Crashes + CrashesOfDirectory - 1) / CrashesOfDirectory,
        new ParallelOptions { MaxDegreeOfParallelism = 2 },
        async (number, _) => await CrashAsync(_folder[string.Create(CultureInfo.InvariantCulture, $"{number}")], seed: 4 + number, Math.Min(CrashesOfDirectory, Crashes - (number * CrashesOfDirectory))));

    private static async Task CrashAsync(string directory, int seed, int crashes)
    {
        Random random = new(seed);
        long acknowledged = 0;
        for (int crash = 0; crash < crashes; crash++)
        {
            acknowledged = await RunAndKillAsync(directory, crash, random.Next(1, 60), acknowledged);
        }

        await using IUnikraftPlatform platform = new UnikraftPlatformBuilder().Configure(options => options.VolumeDirectory = directory).UseKvm().Build();
        Assert.All(platform.Volumes.List(), volume => Assert.Null(volume.Error));
        Assert.InRange(await CheckAsync(platform, "data"), acknowledged, long.MaxValue);
        foreach (Volume clone in platform.Volumes.List().Where(volume => !string.Equals(volume.Name, "data", StringComparison.Ordinal)).Take(10))
        {
            await CheckAsync(platform, clone.Uuid);
        }
    }

    private static async Task<long> CheckAsync(IUnikraftPlatform platform, NameOrUuid volume)
    {
        Instance instance = await platform.Instances.CreateAsync(new CreateInstanceRequest
        {
            Image = GuestImages.Get("kv"),
            MemoryMb = 16,
            Volumes = [new InstanceVolume { Volume = volume, At = "/data" }],
        }).Guarded();
        await using ConsoleSession console = new(platform.Instances.AttachConsole(instance.Uuid, new ConsoleOptions { FromStart = true }));
        long last = LastOf(await console.ReadLineAsync("kv"));
        await console.WriteLineAsync("check");
        Assert.StartsWith("check ok", await console.ReadLineAsync("check"), StringComparison.Ordinal);
        await platform.Instances.DeleteAsync(instance.Uuid).Guarded();
        return last;
    }

    /// <summary>What each thread of a process waits for, as the kernel says.</summary>
    private static string ThreadsOf(Process process) => string.Join(
        ", ",
        Directory.EnumerateDirectories(string.Create(CultureInfo.InvariantCulture, $"/proc/{process.Id}/task"))
            .Select(static thread => $"{Read(Path.Combine(thread, "comm"))}: {Read(Path.Combine(thread, "wchan"))} {Read(Path.Combine(thread, "syscall")).Split(' ')[0]}"));

    private static string Read(string path)
    {
        try
        {
            return File.ReadAllText(path).Trim();
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            return error.Message;
        }
    }

    private static long LastOf(string line)
    {
        Assert.StartsWith("kv ready", line, StringComparison.Ordinal);
        string last = line.Split(' ').First(static word => word.StartsWith("last=", StringComparison.Ordinal));
        return long.Parse(last["last=".Length..], CultureInfo.InvariantCulture);
    }

    private static async Task<long> RunAndKillAsync(string directory, int crash, int acknowledgements, long before)
    {
        string dotnet = Environment.ProcessPath is { } path && Path.GetFileNameWithoutExtension(path) is "dotnet" ? path : "dotnet";
        string host = Path.Combine(AppContext.BaseDirectory, "Unikraft.Platform.CrashHost.dll");
        string image = Path.Combine(AppContext.BaseDirectory, "guests", "kv.elf");
        using Process process = Process.Start(new ProcessStartInfo(dotnet, [host, directory, image])
        {
            UseShellExecute = false,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        })!;
        Task<string> errors = process.StandardError.ReadToEndAsync();
        long last = before;
        int seen = 0;
        string? line = null;
        try
        {
            while (seen < acknowledgements)
            {
                line = await process.StandardOutput.ReadLineAsync().Guarded();
                if (line is null)
                {
                    Assert.Fail($"The host ended in round {crash}: {await errors.Guarded()}");
                }
                else if (line.StartsWith("ack ", StringComparison.Ordinal))
                {
                    last = long.Parse(line["ack ".Length..], CultureInfo.InvariantCulture);
                    seen++;
                }
                else if (line.StartsWith("kv", StringComparison.Ordinal))
                {
                    Assert.InRange(LastOf(line), before, long.MaxValue);
                }
                else if (line.StartsWith("load error", StringComparison.Ordinal))
                {
                    Assert.Fail($"The guest met an error in round {crash} after {seen} acknowledgements: {line}");
                }
            }
        }
        catch (TimeoutException)
        {
            Assert.Fail(
                $"The host is silent in round {crash} after {seen} of {acknowledgements} acknowledgements and the line '{line}'.\n"
                + $"Its threads wait in {ThreadsOf(process)}.\nThe host's disk: {Read("/proc/pressure/io")}\nIts processor: {Read("/proc/pressure/cpu")}");
        }
        finally
        {
            process.Kill();
            await process.WaitForExitAsync().Guarded();
        }

        return last;
    }
}
