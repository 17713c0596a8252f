using System.Text;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;
using Unikraft.Platform;

namespace HostedPlatform;

/// <summary>Runs one guest and puts what it writes into the log of the host.</summary>
public sealed partial class CounterWorker(
    IInstanceManager instances,
    WorkerOptions options,
    TimeProvider time,
    IHostApplicationLifetime host,
    ILogger<CounterWorker> logger) : BackgroundService
{
    protected override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        Instance counter = await instances.CreateAsync(
            new CreateInstanceRequest
            {
                Name = "counter",
                Image = Path.Combine(AppContext.BaseDirectory, "guests", "counter.elf"),
                Args = ["--period-ms", "500"],
                MemoryMb = 64,
                RestartPolicy = RestartPolicy.Always,
                WaitTimeout = TimeSpan.FromSeconds(10),
            },
            stoppingToken);
        LogRunning(counter.Name, counter.Uuid, counter.BootTime!.Value.TotalMilliseconds);

        using ITimer end = time.CreateTimer(_ => host.StopApplication(), null, options.RunFor, Timeout.InfiniteTimeSpan);
        try
        {
            await using IInstanceConsole console = instances.AttachConsole(counter.Uuid, new ConsoleOptions { FromStart = true });
            using StreamReader output = new(console.Output.AsStream(), Encoding.UTF8);
            while (await output.ReadLineAsync(stoppingToken) is { } line)
            {
                LogLine(counter.Name, line);
            }
        }
        catch (OperationCanceledException) when (stoppingToken.IsCancellationRequested)
        {
            Instance stopped = instances.Get(counter.Uuid);
            StopReason reason = stopped.StopReason ?? StopReason.None;
            LogStopped(stopped.Name, stopped.State.ToText(), reason.ToMask(), StopReasons.Encode(reason), stopped.ExitCode, stopped.StopCode);
        }
    }

    [LoggerMessage(1, LogLevel.Information, "{Instance} ({Uuid}) runs, main reached in {Milliseconds:F2} ms")]
    private partial void LogRunning(string instance, Guid uuid, double milliseconds);

    [LoggerMessage(2, LogLevel.Information, "{Instance} | {Line}")]
    private partial void LogLine(string instance, string line);

    [LoggerMessage(3, LogLevel.Information, "{Instance} is {State}: stop_reason {Mask} ({Value}), exit_code {ExitCode}, stop_code {StopCode}")]
    private partial void LogStopped(string instance, string state, string mask, int value, int? exitCode, StopCode? stopCode);
}
