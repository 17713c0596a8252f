using System.Diagnostics;
using System.Runtime.CompilerServices;
using System.Text.Json.Nodes;
using Unikraft.Platform.Kvm.Machines;

namespace Unikraft.Platform.Latency.Measures;

/// <summary>
/// Starting a suspended instance beside loading a checkpoint of the same guest, both by calls of the whole platform until the guest has been left for the
/// first time. Each instance is loaded, dirties 1 % of its memory, is suspended and started again, so that neither side has the deeper lineage to follow.
/// </summary>
internal sealed class ResumeTotal : IMeasure
{
    private const int WarmUp = 50;
    private const double Limit = 1.3;

    private static readonly TimeSpan Settling = TimeSpan.FromMilliseconds(5);

    public string Name => "resume.total";

    public async IAsyncEnumerable<Measurement> RunAsync(MeasureContext context, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        int pages = FixedResidue.PagesOf(BranchTotal.MemoryMb, BranchTotal.Share);
        UnikraftPlatformBuilder builder = new();
        MachineProbe probe = new(builder) { WakeUp = "show\n"u8.ToArray() };
        probe.UseKvm();
        await using IUnikraftPlatform platform = builder.Build();
        await CheckpointAsync(platform, probe, pages, cancellationToken);
        List<double> loads = [];
        List<double> resumes = [];
        int samples = context.Samples(300, quick: 5);
        for (int i = context.IsQuick ? -1 : -WarmUp; i < samples; i++)
        {
            (double load, double resume) = await SampleAsync(platform, probe, cancellationToken);
            if (i >= 0)
            {
                loads.Add(load);
                resumes.Add(resume);
            }
        }

        Percentiles loaded = Percentiles.Of(loads);
        Percentiles resumed = Percentiles.Of(resumes);
        yield return Row(Measurement.Microseconds, resumed, pages, "resume");
        yield return Row(Measurement.Microseconds, loaded, pages, "load");
        yield return Row(
            Measurement.Ratio,
            new Percentiles(resumed.Count, resumed.P50 / loaded.P50, resumed.P90 / loaded.P90, resumed.P99 / loaded.P99, resumed.Max / loaded.Max),
            pages,
            "resume over load",
            Target.AtMost(Figure.P50, Limit));
    }

    // The source builds on a layer already, as each loaded instance does when it is suspended.
    private static async Task CheckpointAsync(IUnikraftPlatform platform, MachineProbe probe, int pages, CancellationToken cancellationToken)
    {
        Instance source = await BranchTotal.BootAsync(platform, pages, cancellationToken);
        await using (IInstanceConsole console = platform.Instances.AttachConsole(source.Uuid))
        {
            foreach (string name in (string[])["base", "point"])
            {
                await BranchTotal.TickAsync(console, cancellationToken);
                await platform.Checkpoints.CreateAsync(
                    new CreateCheckpointRequest { From = source.Uuid, Name = name, WaitTimeout = Timeout.InfiniteTimeSpan },
                    cancellationToken);
                await probe.MachineOf(source.Uuid).Background.WaitAsync(cancellationToken);
            }
        }

        await BranchTotal.DeleteAsync(platform, probe, source.Uuid, cancellationToken);
    }

    private static async Task<(double Load, double Resume)> SampleAsync(IUnikraftPlatform platform, MachineProbe probe, CancellationToken cancellationToken)
    {
        await Task.Delay(Settling, TimeProvider.System, cancellationToken);
        long start = Stopwatch.GetTimestamp();
        Instance instance = await platform.Instances.CreateAsync(new CreateInstanceRequest { Checkpoint = "point" }, cancellationToken);
        double load = ElapsedUntilExit(start, probe.MachineOf(instance.Uuid));

        // What woke it is answered before anybody listens.
        await Task.Delay(Settling, TimeProvider.System, cancellationToken);
        await using (IInstanceConsole console = platform.Instances.AttachConsole(instance.Uuid))
        {
            await BranchTotal.TickAsync(console, cancellationToken);
        }

        KvmMachine suspended = probe.MachineOf(instance.Uuid);
        await platform.Instances.SuspendAsync(instance.Uuid, cancellationToken);
        await suspended.Background.WaitAsync(cancellationToken);
        await probe.ReclaimAsync();
        await Task.Delay(Settling, TimeProvider.System, cancellationToken);

        start = Stopwatch.GetTimestamp();
        await platform.Instances.StartAsync(instance.Uuid, cancellationToken);
        double resume = ElapsedUntilExit(start, probe.MachineOf(instance.Uuid));
        await BranchTotal.DeleteAsync(platform, probe, instance.Uuid, cancellationToken);
        return (load, resume);
    }

    private static double ElapsedUntilExit(long start, KvmMachine machine)
    {
        SpinWait spin = default;
        while (machine.Exits == 0)
        {
            spin.SpinOnce(sleep1Threshold: -1);
        }

        return Stopwatch.GetElapsedTime(start).TotalMicroseconds;
    }

    private Measurement Row(string unit, Percentiles percentiles, int pages, string what, params Target[] targets) => Measurement.Of(
        Name,
        unit,
        percentiles,
        floor: null,
        new JsonObject { ["memory_mb"] = BranchTotal.MemoryMb, ["dirty_pages"] = pages, ["what"] = what, ["until"] = "first exit" },
        targets);
}
