using System.Diagnostics;
using System.IO.Pipelines;
using System.Runtime.CompilerServices;
using System.Text.Json.Nodes;
using Unikraft.Platform.Kvm.Machines;

namespace Unikraft.Platform.Latency.Measures;

/// <summary>
/// Branching a running instance by a call of the whole platform: until the branch has left the guest for the first time, and until the caller knows,
/// because the call has returned. The source builds on a layer already and has dirtied 1 % of its memory since.
/// </summary>
internal sealed class BranchTotal : IMeasure
{
    private const int MemoryMb = 256;
    private const int WarmUp = 100;
    private const double Share = 0.01;
    private const double LimitMicroseconds = 3000;

    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(30);
    private static readonly TimeSpan Settling = TimeSpan.FromMilliseconds(5);

    public string Name => "branch.total";

    public async IAsyncEnumerable<Measurement> RunAsync(MeasureContext context, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        int pages = FixedResidue.PagesOf(MemoryMb, Share);
        UnikraftPlatformBuilder builder = new();
        MachineProbe probe = new(builder) { WakeUp = "show\n"u8.ToArray() };
        probe.UseKvm();
        await using IUnikraftPlatform platform = builder.Build();
        Instance source = await platform.Instances.CreateAsync(
            new CreateInstanceRequest
            {
                Image = CounterGuest.Image,
                MemoryMb = MemoryMb,
                Args = CounterGuest.Arguments(MemoryMb, pages, "--random"),
                WaitTimeout = Patience,
            },
            cancellationToken);
        KvmMachine machine = probe.MachineOf(source.Uuid);
        List<double> running = [];
        List<double> returned = [];
        await using (IInstanceConsole console = platform.Instances.AttachConsole(source.Uuid))
        {
            int samples = context.Samples(300, quick: 5);
            for (int i = -WarmUp; i < samples; i++)
            {
                await TickAsync(console, cancellationToken);
                (double toExit, double toReturn) = await BranchAsync(platform, probe, source.Uuid, cancellationToken);
                await machine.Folding.WaitAsync(cancellationToken);
                if (i >= 0)
                {
                    running.Add(toExit);
                    returned.Add(toReturn);
                }
            }
        }

        yield return Row(running, pages, "first exit of the branch", Target.AtMost(Figure.P50, LimitMicroseconds));
        yield return Row(returned, pages, "call returned");
    }

    /// <summary>Lets the source dirty its pages, and waits until it sleeps again.</summary>
    private static async Task TickAsync(IInstanceConsole console, CancellationToken cancellationToken)
    {
        await console.Input.WriteAsync("tick\n"u8.ToArray(), cancellationToken);
        ReadResult answer = await console.Output.ReadAsync(cancellationToken);
        console.Output.AdvanceTo(answer.Buffer.End);
        await Task.Delay(Settling, TimeProvider.System, cancellationToken);
    }

    private static async Task<(double ToExit, double ToReturn)> BranchAsync(
        IUnikraftPlatform platform,
        MachineProbe probe,
        Guid source,
        CancellationToken cancellationToken)
    {
        CreateInstanceRequest request = new() { BranchFrom = source, WaitTimeout = Patience };
        long start = Stopwatch.GetTimestamp();
        Instance branch = await platform.Instances.CreateAsync(request, cancellationToken);
        double toReturn = Stopwatch.GetElapsedTime(start).TotalMicroseconds;
        KvmMachine machine = probe.MachineOf(branch.Uuid);
        SpinWait spin = default;
        while (machine.Exits == 0)
        {
            spin.SpinOnce(sleep1Threshold: -1);
        }

        double toExit = Stopwatch.GetElapsedTime(start).TotalMicroseconds;
        await platform.Instances.DeleteAsync(branch.Uuid, cancellationToken);
        probe.Forget(branch.Uuid);
        await probe.ReclaimAsync();
        return (toExit, toReturn);
    }

    private Measurement Row(IReadOnlyList<double> samples, int pages, string until, params Target[] targets) => Measurement.Of(
        Name,
        Measurement.Microseconds,
        Percentiles.Of(samples),
        floor: null,
        new JsonObject { ["memory_mb"] = MemoryMb, ["dirty_pages"] = pages, ["guest"] = "idle", ["until"] = until },
        targets);
}
