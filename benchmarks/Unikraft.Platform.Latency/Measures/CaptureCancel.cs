using System.Diagnostics;
using System.Runtime.CompilerServices;
using System.Text.Json.Nodes;
using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Kvm.Machines;
using Unikraft.Platform.Kvm.Snapshots;

namespace Unikraft.Platform.Latency.Measures;

/// <summary>
/// Cancelling a snapshot at a random moment, of a guest that writes all the time. The source runs again no later than after the largest gap that the
/// guest saw from the cancellation on, or was in at the time; when the call returns is another matter.
/// </summary>
internal sealed class CaptureCancel : IMeasure
{
    private const int MemoryMb = 256;
    private const int Rehearsals = 20;
    private const int AttemptsForEach = 10;
    private const int Seed = 3;
    private const double LimitMicroseconds = 5000;

    public string Name => "capture.cancel";

    public async IAsyncEnumerable<Measurement> RunAsync(MeasureContext context, [EnumeratorCancellation] CancellationToken cancellationToken)
    {
        await using KvmHypervisor hypervisor = CounterGuest.OpenHypervisor();
        await FixedResidue.WarmUpAsync(hypervisor, isBusy: true, inGuest: false, cancellationToken);
        int samples = context.Samples(200, quick: 10);
        CounterGuest guest =
            await CounterGuest.StartAsync(hypervisor, MemoryMb, pages: 1, ["--random", "--busy", "--rate", "50000"], cancellationToken);
        await using (guest)
        {
            TimeSpan duration = await MeasureDurationAsync(guest, cancellationToken);
            Random random = new(Seed);
            List<double> gaps = [];
            List<double> returns = [];
            int completed = 0;
            for (int attempt = 0; returns.Count < samples; attempt++)
            {
                if (attempt == samples * AttemptsForEach)
                {
                    throw new InvalidOperationException($"Of {attempt} snapshots {returns.Count} could be cancelled: they are over too soon.");
                }

                GapWatch watch = await guest.WatchAsync(cancellationToken);
                double? elapsed = await CancelAsync(guest, watch, random.NextDouble() * duration, cancellationToken);
                watch.NoteSamples();
                double gap = watch.TakeGap();
                if (elapsed is { } microseconds)
                {
                    gaps.Add(gap);
                    returns.Add(microseconds);
                }
                else
                {
                    completed++;
                }
            }

            yield return Row(gaps, "source runs", duration, completed, Target.Below(Figure.Max, LimitMicroseconds));
            yield return Row(returns, "call returned", duration, completed);
        }
    }

    /// <summary>How long a snapshot takes as a rule.</summary>
    private static async Task<TimeSpan> MeasureDurationAsync(CounterGuest guest, CancellationToken cancellationToken)
    {
        List<double> durations = [];
        for (int i = 0; i < Rehearsals; i++)
        {
            await guest.WatchAsync(cancellationToken);
            long start = Stopwatch.GetTimestamp();
            (await guest.Machine.CaptureAsync(cancellationToken)).Dispose();
            durations.Add(Stopwatch.GetElapsedTime(start).TotalMicroseconds);
            await guest.Machine.Background.WaitAsync(cancellationToken);
        }

        return TimeSpan.FromMicroseconds(Percentiles.Of(durations).P50);
    }

    /// <summary>Begins a snapshot and cancels it.</summary>
    /// <returns>Microseconds from the cancellation until the call was over; <see langword="null"/> when the snapshot was complete by then.</returns>
    private static async Task<double?> CancelAsync(CounterGuest guest, GapWatch watch, TimeSpan after, CancellationToken cancellationToken)
    {
        using CancellationTokenSource cancel = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        Task<KvmSnapshot> capture = guest.Machine.CaptureAsync(CaptureOptions.Default, hooks: null, cancel.Token).AsTask();

        // As exact as the timer is: a thread that spun for the rest would take a processor from the guest.
        await Task.WhenAny(capture, Task.Delay(after, TimeProvider.System, cancellationToken));
        watch.Forget();
        long cancelled = Stopwatch.GetTimestamp();
        await cancel.CancelAsync();
        try
        {
            (await capture).Dispose();
            await guest.Machine.Background.WaitAsync(cancellationToken);
            return null;
        }
        catch (OperationCanceledException) when (!cancellationToken.IsCancellationRequested)
        {
            return Stopwatch.GetElapsedTime(cancelled).TotalMicroseconds;
        }
    }

    private Measurement Row(IReadOnlyList<double> samples, string until, TimeSpan duration, int completed, params Target[] targets) =>
        Measurement.Of(
            Name,
            Measurement.Microseconds,
            Percentiles.Of(samples),
            floor: null,
            new JsonObject
            {
                ["until"] = until,
                ["memory_mb"] = MemoryMb,
                ["guest"] = "busy, 50,000 pages a second",
                ["snapshot_p50"] = Math.Round(duration.TotalMicroseconds, 1),
                ["too_late"] = completed,
            },
            targets);
}
