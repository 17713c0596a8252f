using System.Diagnostics;
using System.Globalization;
using System.Runtime.CompilerServices;
using System.Text.Json.Nodes;

namespace Unikraft.Platform.Latency.Measures;

/// <summary>
/// How many instances can be created, run and deleted in a second on each core, by as many callers as there are cores: from an image until main is reached,
/// and as clones of a template. A sample is a second.
/// </summary>
internal sealed class CloneRate : IMeasure
{
    private const int MemoryMb = 64;
    private const int TemplatePages = 10;
    private const double Goal = 200;
    private const int WarmUpSeconds = 3;
    private const int Rounds = 6;

    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(30);
    private static readonly TimeSpan Second = TimeSpan.FromSeconds(1);

    public string Name => "clone.rate";

    public async IAsyncEnumerable<Measurement> RunAsync(MeasureContext context, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        int seconds = context.Samples(30, quick: 2);
        await using IUnikraftPlatform platform = new UnikraftPlatformBuilder().UseKvm().Build();
        CreateInstanceRequest boot = new() { Image = MeasureContext.Guest("hello"), MemoryMb = MemoryMb, WaitTimeout = Patience };
        yield return await MeasureAsync(context, platform, boot, "image", ["hello", "boot"], seconds, cancellationToken);

        Instance source = await platform.Instances.CreateAsync(
            new CreateInstanceRequest
            {
                Image = CounterGuest.Image,
                MemoryMb = MemoryMb,
                Args = CounterGuest.Arguments(MemoryMb, TemplatePages),
                WaitTimeout = Patience,
            },
            cancellationToken);
        Template template = await platform.Templates.ConvertAsync(source.Uuid, cancellationToken);
        CreateInstanceRequest clone = new() { Template = template.Uuid, WaitTimeout = Patience };
        yield return await MeasureAsync(context, platform, clone, "template", ["counter", "fork"], seconds, cancellationToken);
    }

    private async Task<Measurement> MeasureAsync(
        MeasureContext context,
        IUnikraftPlatform platform,
        CreateInstanceRequest request,
        string from,
        string[] floorGuestAndKind,
        int seconds,
        CancellationToken cancellationToken)
    {
        await SampleAsync(platform, request, WarmUpSeconds, cancellationToken);
        (IReadOnlyList<double> rates, IReadOnlyList<double> floor) = await context.InterleaveAsync(
            (count, token) => SampleAsync(platform, request, count, token),
            count => ["clone-rate", MeasureContext.Guest(floorGuestAndKind[0]), Text(MemoryMb), Text(count), floorGuestAndKind[1]],
            seconds,
            cancellationToken,
            floorUnits: 1,
            rounds: Rounds);
        return Measurement.Of(
            Name,
            Measurement.PerSecond,
            Percentiles.Of(rates),
            Percentiles.OfAny(floor),
            new JsonObject
            {
                ["from"] = from,
                ["per"] = "core",
                ["cores"] = Environment.ProcessorCount,
                ["memory_mb"] = MemoryMb,
                ["mean"] = Math.Round(rates.Average(), 1),
                ["slowest_second"] = Math.Round(rates.Min(), 1),
            },
            Target.AtLeast(Figure.P50, Goal));
    }

    /// <summary>Creates and deletes instances for some seconds.</summary>
    /// <returns>How many in each second, on each core.</returns>
    private static async Task<IReadOnlyList<double>> SampleAsync(
        IUnikraftPlatform platform,
        CreateInstanceRequest request,
        int seconds,
        CancellationToken cancellationToken)
    {
        using CancellationTokenSource stop = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        int cores = Environment.ProcessorCount;
        long made = 0;
        List<double> rates = [];
        Task[] callers = [.. Enumerable.Range(0, cores).Select(_ => Task.Run(CallAsync, cancellationToken))];
        try
        {
            while (rates.Count < seconds && !callers.Any(caller => caller.IsCompleted))
            {
                long before = Volatile.Read(ref made);
                long start = Stopwatch.GetTimestamp();
                await Task.Delay(Second, TimeProvider.System, cancellationToken);
                rates.Add((Volatile.Read(ref made) - before) / Stopwatch.GetElapsedTime(start).TotalSeconds / cores);
            }
        }
        finally
        {
            await stop.CancelAsync();
            await Task.WhenAll(callers);
        }

        return rates;

        async Task CallAsync()
        {
            while (!stop.IsCancellationRequested)
            {
                Instance instance = await platform.Instances.CreateAsync(request, CancellationToken.None);
                await platform.Instances.DeleteAsync(instance.Uuid, CancellationToken.None);
                Interlocked.Increment(ref made);
            }
        }
    }

    private static string Text(int value) => value.ToString(CultureInfo.InvariantCulture);
}
