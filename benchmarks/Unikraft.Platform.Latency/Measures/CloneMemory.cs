using System.Globalization;
using System.Runtime.CompilerServices;
using System.Text.Json.Nodes;
using Unikraft.Platform.Kvm.Machines;

namespace Unikraft.Platform.Latency.Measures;

/// <summary>
/// What each of many clones of a template takes of the host's memory when all are alive and each has worked for a second, the kernel's part, the
/// threads and the managed objects included. The floor makes as many VMs from the same guest, without threads.
/// </summary>
internal sealed class CloneMemory : IMeasure
{
    private const int MemoryMb = 64;
    private const int Clones = 1000;
    private const int QuickClones = 50;
    private const int Pages = 10;
    private const int WarmUp = 20;
    private const int BallastMb = MemoryMb - 16;
    private const int AtOnce = 8;
    private const double BytesPerKibibyte = 1024;
    private const double Surplus = 250;

    /// <summary>A clone that leaves the guest so often has worked: it asked for the time, and went to sleep again.</summary>
    private const int ExitsOfWork = 2;

    private static readonly TimeSpan Patience = TimeSpan.FromMinutes(1);

    /// <summary>The guest ticks once a second.</summary>
    private static readonly TimeSpan Working = TimeSpan.FromSeconds(1.5);

    public string Name => "clone.memory";

    public async IAsyncEnumerable<Measurement> RunAsync(MeasureContext context, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        int clones = context.IsQuick ? QuickClones : Clones;
        UnikraftPlatformBuilder builder = new();
        MachineProbe probe = new(builder);
        probe.UseKvm();
        await using IUnikraftPlatform platform = builder.Build();

        // An arena of exactly the pages of one tick: a clone dirties the same ones however often it ticks while the others are made.
        Instance source = await platform.Instances.CreateAsync(
            new CreateInstanceRequest
            {
                Image = CounterGuest.Image,
                MemoryMb = MemoryMb,
                Args = CounterGuest.Arguments(MemoryMb, Pages, "--period-ms", "1000", "--arena-mb", "0", "--ballast-mb", Text(BallastMb)),
                WaitTimeout = Patience,
            },
            cancellationToken);
        await Task.Delay(Working, TimeProvider.System, cancellationToken);
        Template template = await platform.Templates.ConvertAsync(source.Uuid, cancellationToken);
        probe.Forget(source.Uuid);
        await DeleteAsync(platform, probe, await CloneAsync(platform, probe, template.Uuid, WarmUp, cancellationToken), cancellationToken);

        (IReadOnlyList<double> subject, IReadOnlyList<double> floor) = await context.InterleaveAsync(
            async (count, token) =>
            {
                List<double> each = [];
                for (int i = 0; i < count; i++)
                {
                    long before = await SettleAsync(probe, token);
                    IReadOnlyList<Guid> made = await CloneAsync(platform, probe, template.Uuid, clones, token);
                    long after = await SettleAsync(probe, token);
                    each.Add((after - before) / BytesPerKibibyte / clones);
                    await DeleteAsync(platform, probe, made, token);
                }

                return each;
            },
            _ => ["clones", CounterGuest.Image, Text(MemoryMb), Text(clones)],
            context.Samples(3, quick: 1),
            cancellationToken,
            floorUnits: BytesPerKibibyte,
            rounds: int.MaxValue);
        yield return Measurement.Of(
            Name,
            Measurement.Kibibytes,
            Percentiles.Of(subject),
            Percentiles.OfAny(floor),
            new JsonObject
            {
                ["clones"] = clones,
                ["memory_mb"] = MemoryMb,
                ["dirty_pages"] = Pages,
                ["over_floor"] = floor.Count == 0 ? null : Math.Round(Percentiles.Of(subject).P50 - Percentiles.Of(floor).P50, 1),
            },
            Target.AtMostFloorPlus(Figure.P50, Surplus));
    }

    private static async Task<IReadOnlyList<Guid>> CloneAsync(
        IUnikraftPlatform platform,
        MachineProbe probe,
        Guid template,
        int count,
        CancellationToken cancellationToken)
    {
        List<Guid> clones = [];
        for (int i = 0; i < count; i++)
        {
            CreateInstanceRequest request = new() { Template = template, WaitTimeout = Patience };
            clones.Add((await platform.Instances.CreateAsync(request, cancellationToken)).Uuid);
        }

        await Task.Delay(Working, TimeProvider.System, cancellationToken);
        int idle = clones.Count(clone => probe.MachineOf(clone).Exits < ExitsOfWork);
        return idle == 0 ? clones : throw new InvalidOperationException($"{idle} of {count} clones have not worked within {Working}.");
    }

    private static Task DeleteAsync(
        IUnikraftPlatform platform,
        MachineProbe probe,
        IReadOnlyList<Guid> clones,
        CancellationToken cancellationToken) => Parallel.ForEachAsync(
            clones,
            new ParallelOptions { MaxDegreeOfParallelism = AtOnce, CancellationToken = cancellationToken },
            async (clone, token) =>
            {
                await platform.Instances.DeleteAsync(clone, token);
                probe.Forget(clone);
            });

    /// <summary>Reads what the host has in use when nothing of the past is left to be freed.</summary>
    private static async Task<long> SettleAsync(MachineProbe probe, CancellationToken cancellationToken)
    {
        await probe.ReclaimAsync();
        GC.Collect(GC.MaxGeneration, GCCollectionMode.Aggressive, blocking: true, compacting: true);
        await Task.Delay(Working, TimeProvider.System, cancellationToken);
        return HostMemory.ReadUsedBytes();
    }

    private static string Text(int value) => value.ToString(CultureInfo.InvariantCulture);
}
