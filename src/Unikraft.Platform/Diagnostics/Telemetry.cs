using System.Diagnostics;
using System.Diagnostics.Metrics;
using Unikraft.Platform.Resources;

namespace Unikraft.Platform.Diagnostics;

/// <summary>The metrics and traces of one platform.</summary>
internal sealed class Telemetry : IDisposable
{
    private static readonly string? Version = typeof(Telemetry).Assembly.GetName().Version?.ToString(fieldCount: 3);

    // Shared by all platforms of the process: listeners select sources by name.
    private static readonly ActivitySource Activities = new(TelemetryNames.Source, Version);

    private readonly TimeProvider _timeProvider;
    private readonly Histogram<double> _startDuration;
    private readonly Histogram<double> _wakeupDuration;
    private readonly Histogram<double> _checkpointPause;
    private readonly Counter<long> _stops;
    private readonly Counter<long> _restarts;
    private readonly Counter<long> _autokills;

    public Telemetry(TimeProvider timeProvider)
    {
        _timeProvider = timeProvider;
        Meter = new Meter(TelemetryNames.Source, Version);
        _startDuration = Meter.CreateHistogram<double>(
            TelemetryNames.InstanceStartDuration,
            unit: "s",
            description: "From the request to start until the app reached its main entry point or, restored, its vCPUs ran.");
        _wakeupDuration = Meter.CreateHistogram<double>(
            TelemetryNames.InstanceWakeupDuration,
            unit: "s",
            description: "From a connection to an instance in standby until the instance was running.");
        _checkpointPause = Meter.CreateHistogram<double>(
            TelemetryNames.CheckpointPause,
            unit: "s",
            description: "How long a running instance stood still for a snapshot.");
        _stops = Meter.CreateCounter<long>(TelemetryNames.InstanceStops, unit: "{stop}", description: "Instances that stopped.");
        _restarts = Meter.CreateCounter<long>(
            TelemetryNames.InstanceRestarts,
            unit: "{restart}",
            description: "Restarts by the restart policy.");
        _autokills = Meter.CreateCounter<long>(
            TelemetryNames.Autokills,
            unit: "{removal}",
            description: "Instances, checkpoints and templates removed by their autokill policy.");
    }

    public Meter Meter { get; }

    /// <summary>Reports how many instances there are in each state, and how many checkpoints and templates.</summary>
    public void Observe(Func<IReadOnlyList<Instance>> instances, Func<int> checkpoints, Func<int> templates)
    {
        Meter.CreateObservableUpDownCounter(
            TelemetryNames.Instances,
            () => instances().CountBy(instance => instance.State).Select(count => new Measurement<long>(
                count.Value,
                new KeyValuePair<string, object?>(TelemetryNames.StateTag, count.Key.ToText()))),
            unit: "{instance}",
            description: "Instances by state.");
        Meter.CreateObservableUpDownCounter(
            TelemetryNames.Checkpoints,
            () => (long)checkpoints(),
            unit: "{checkpoint}",
            description: "Checkpoints, those in the making included.");
        Meter.CreateObservableUpDownCounter(
            TelemetryNames.Templates,
            () => (long)templates(),
            unit: "{template}",
            description: "Templates.");
    }

    /// <summary>Reports the metrics of each instance.</summary>
    /// <param name="measure">Measures all instances, with their memory or without.</param>
    public void Observe(Func<bool, IReadOnlyList<InstanceMetrics>> measure)
    {
        foreach (InstanceMetric metric in InstanceMetric.All)
        {
            if (metric.MeterName is not { } name)
            {
                continue;
            }

            if (metric.IsCounter)
            {
                Meter.CreateObservableCounter(name, () => Measurements(metric), metric.Unit, metric.Help);
            }
            else
            {
                Meter.CreateObservableGauge(name, () => Measurements(metric), metric.Unit, metric.Help);
            }
        }

        IEnumerable<Measurement<double>> Measurements(InstanceMetric metric)
        {
            foreach (InstanceMetrics instance in measure(metric.NeedsMemory))
            {
                if (metric.Value(instance) is { } value)
                {
                    yield return new Measurement<double>(
                        value,
                        new KeyValuePair<string, object?>(TelemetryNames.NameTag, instance.Name),
                        new KeyValuePair<string, object?>(TelemetryNames.UuidTag, instance.Uuid));
                }
            }
        }
    }

    public void Started(TimeSpan bootTime, bool restored) => _startDuration.Record(
        bootTime.TotalSeconds,
        new KeyValuePair<string, object?>(
            TelemetryNames.StartKindTag,
            restored ? TelemetryNames.RestoreStart : TelemetryNames.BootStart));

    public void Stopped(StopReason reason) =>
        _stops.Add(1, new KeyValuePair<string, object?>(TelemetryNames.StopReasonTag, reason.ToMask()));

    public void WokenUp(TimeSpan latency) => _wakeupDuration.Record(latency.TotalSeconds);

    public void Restarted() => _restarts.Add(1);

    public void Autokilled(string kind) => _autokills.Add(1, new KeyValuePair<string, object?>(TelemetryNames.KindTag, kind));

    public void Paused(TimeSpan pause) => _checkpointPause.Record(pause.TotalSeconds);

    /// <summary>Begins to trace an operation, if somebody listens.</summary>
    /// <param name="activity">What it is.</param>
    /// <param name="identity">What it is done to.</param>
    /// <param name="follows">An operation that it follows without being part of it.</param>
    public Span? Begin(string activity, ResourceIdentity identity, ActivityContext? follows = null)
    {
        Activity? begun = Activities.StartActivity(
            activity,
            ActivityKind.Internal,
            parentContext: default,
            links: follows is { } before ? [new ActivityLink(before)] : null,
            startTime: _timeProvider.GetUtcNow());
        begun?.SetTag(TelemetryNames.NameTag, identity.Name);
        begun?.SetTag(TelemetryNames.UuidTag, identity.Uuid);
        return begun is null ? null : new Span(begun, _timeProvider);
    }

    /// <summary>Traces an operation from its beginning to its end.</summary>
    public Task TraceAsync(string activity, ResourceIdentity identity, Func<Task> operation) =>
        TraceAsync(activity, identity, follows: null, _ => operation());

    /// <summary>Traces an operation from its beginning to its end.</summary>
    /// <param name="activity">What it is.</param>
    /// <param name="identity">What it is done to.</param>
    /// <param name="follows">An operation that it follows without being part of it.</param>
    /// <param name="operation">The operation, which is told what others refer to it by, if somebody listens.</param>
    public async Task TraceAsync(string activity, ResourceIdentity identity, ActivityContext? follows, Func<ActivityContext?, Task> operation)
    {
        using Span? span = Begin(activity, identity, follows);
        try
        {
            await operation(span?.Context).ConfigureAwait(false);
        }
        catch (Exception error)
        {
            span?.Fail(error);
            throw;
        }
    }

    /// <summary>Traces an operation from its beginning to its end.</summary>
    public async Task<T> TraceAsync<T>(string activity, ResourceIdentity identity, Func<Task<T>> operation)
    {
        using Span? span = Begin(activity, identity);
        try
        {
            return await operation().ConfigureAwait(false);
        }
        catch (Exception error)
        {
            span?.Fail(error);
            throw;
        }
    }

    public void Dispose() => Meter.Dispose();
}
