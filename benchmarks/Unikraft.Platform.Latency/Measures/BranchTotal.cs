using System.Diagnostics;
using System.Globalization;
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
    internal const int MemoryMb = 256;
    internal const double Share = 0.01;

    private const int WarmUp = 100;
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
        Instance source = await BootAsync(platform, pages, cancellationToken);
        KvmMachine machine = probe.MachineOf(source.Uuid);
        List<double> returned = [];
        await using IInstanceConsole console = platform.Instances.AttachConsole(source.Uuid);
        await SampleAsync(WarmUp, cancellationToken);
        returned.Clear();
        (IReadOnlyList<double> running, IReadOnlyList<double> floor) = await context.InterleaveAsync(
            SampleAsync,
            count => ["branch", CounterGuest.Image, Text(MemoryMb), Text(pages), Text(count)],
            context.Samples(300, quick: 5),
            cancellationToken);
        yield return Row(running, Percentiles.OfAny(floor), pages, "first exit of the branch", Target.AtMost(Figure.P50, LimitMicroseconds));
        yield return Row(returned, floor: null, pages, "call returned");

        async Task<IReadOnlyList<double>> SampleAsync(int count, CancellationToken token)
        {
            List<double> toExits = [];
            for (int i = 0; i < count; i++)
            {
                await TickAsync(console, token);
                (double toExit, double toReturn, Guid branch) = await BranchAsync(platform, probe, source.Uuid, token);
                await DeleteAsync(platform, probe, branch, token);
                await machine.Background.WaitAsync(token);
                toExits.Add(toExit);
                returned.Add(toReturn);
            }

            return toExits;
        }
    }

    /// <summary>Takes branches of a new source in a row, which stay alive until the last one is there.</summary>
    /// <param name="branches">How many.</param>
    /// <param name="pages">The pages that the source dirties before each.</param>
    /// <param name="cancellationToken">Cancels.</param>
    /// <returns>How long the second and the last one took, in microseconds.</returns>
    internal static async Task<(double Second, double Last)> SeriesAsync(int branches, int pages, CancellationToken cancellationToken)
    {
        UnikraftPlatformBuilder builder = new();
        MachineProbe probe = new(builder) { WakeUp = "show\n"u8.ToArray() };
        probe.UseKvm();
        await using IUnikraftPlatform platform = builder.Build();
        Instance source = await BootAsync(platform, pages, cancellationToken);
        await using IInstanceConsole console = platform.Instances.AttachConsole(source.Uuid);
        List<double> elapsed = [];
        for (int i = 0; i < branches; i++)
        {
            // Once in any case: the guest is not heard before it has touched all of its memory.
            if (pages > 0 || i == 0)
            {
                await TickAsync(console, cancellationToken);
            }

            elapsed.Add((await BranchAsync(platform, probe, source.Uuid, cancellationToken)).ToExit);
        }

        return (elapsed[1], elapsed[^1]);
    }

    internal static Task<Instance> BootAsync(IUnikraftPlatform platform, int pages, CancellationToken cancellationToken) =>
        platform.Instances.CreateAsync(
            new CreateInstanceRequest
            {
                Image = CounterGuest.Image,
                MemoryMb = MemoryMb,
                Args = CounterGuest.Arguments(MemoryMb, pages, "--random"),
                WaitTimeout = Patience,
            },
            cancellationToken);

    /// <summary>Lets the source dirty its pages, and waits until it sleeps again.</summary>
    internal static async Task TickAsync(IInstanceConsole console, CancellationToken cancellationToken)
    {
        await console.Input.WriteAsync("tick\n"u8.ToArray(), cancellationToken);
        ReadResult answer = await console.Output.ReadAsync(cancellationToken);
        console.Output.AdvanceTo(answer.Buffer.End);
        await Task.Delay(Settling, TimeProvider.System, cancellationToken);
    }

    private static async Task<(double ToExit, double ToReturn, Guid Branch)> BranchAsync(
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

        return (Stopwatch.GetElapsedTime(start).TotalMicroseconds, toReturn, branch.Uuid);
    }

    internal static async Task DeleteAsync(IUnikraftPlatform platform, MachineProbe probe, Guid branch, CancellationToken cancellationToken)
    {
        await platform.Instances.DeleteAsync(branch, cancellationToken);
        probe.Forget(branch);
        await probe.ReclaimAsync();
    }

    private static string Text(int value) => value.ToString(CultureInfo.InvariantCulture);

    private Measurement Row(IReadOnlyList<double> samples, Percentiles? floor, int pages, string until, params Target[] targets) => Measurement.Of(
        Name,
        Measurement.Microseconds,
        Percentiles.Of(samples),
        floor,
        new JsonObject { ["memory_mb"] = MemoryMb, ["dirty_pages"] = pages, ["guest"] = "idle", ["until"] = until },
        targets);
}
