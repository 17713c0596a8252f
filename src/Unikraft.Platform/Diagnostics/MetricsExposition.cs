using System.Globalization;
using System.Text;
using System.Text.Json;

namespace Unikraft.Platform.Diagnostics;

/// <summary>Writes the metrics of instances in the two forms of the public API.</summary>
public static class MetricsExposition
{
    private const string Histogram = "instance_wakeup_latency_seconds";

    /// <summary>The media type of <see cref="ToPrometheusText"/>.</summary>
    public const string PrometheusMediaType = "text/plain; version=0.0.4; charset=utf-8";

    /// <summary>
    /// The metrics in the text format of Prometheus, under their public names and with the label <c>instance_uuid</c>. Seconds have six decimals, buckets of the
    /// histogram are cumulative. A metric that an instance has no value for is left out, and an
    /// instance that is there twice counts once.
    /// </summary>
    /// <param name="metrics">The metrics, one entry for each instance.</param>
    public static string ToPrometheusText(IReadOnlyList<InstanceMetrics> metrics)
    {
        ArgumentNullException.ThrowIfNull(metrics);
        InstanceMetrics[] instances = [.. metrics.DistinctBy(static instance => instance.Uuid)];
        StringBuilder text = new();
        foreach (InstanceMetric metric in InstanceMetric.All)
        {
            AppendHead(text, metric.Name, metric.Help, metric.IsCounter ? "counter" : "gauge");
            foreach (InstanceMetrics instance in instances)
            {
                if (metric.Value(instance) is { } value)
                {
                    string number = metric.Name.EndsWith("_s", StringComparison.Ordinal) ? Seconds(value) : Number(value);
                    text.Append(CultureInfo.InvariantCulture, $"{metric.Name}{{instance_uuid=\"{instance.Uuid:D}\"}} {number}\n");
                }
            }
        }

        AppendHead(text, Histogram, "How long connections waited that started the instance.", "histogram");
        foreach (InstanceMetrics instance in instances)
        {
            AppendHistogram(text, instance);
        }

        return text.ToString();
    }

    /// <summary>
    /// The metrics as JSON: an array with an object for each instance, with the field names of the public API. Times are whole seconds in UTC, buckets of the
    /// histogram are not cumulative, and fields are left out that the API leaves out.
    /// </summary>
    /// <param name="metrics">The metrics, one entry for each instance.</param>
    public static string ToJson(IReadOnlyList<InstanceMetrics> metrics)
    {
        ArgumentNullException.ThrowIfNull(metrics);
        return JsonSerializer.Serialize([.. metrics.Select(MetricsDocument.Of)], MetricsJsonContext.Default.MetricsDocumentArray);
    }

    private static void AppendHead(StringBuilder text, string name, string help, string type) =>
        text.Append(CultureInfo.InvariantCulture, $"# HELP {name} {help}\n# TYPE {name} {type}\n");

    private static void AppendHistogram(StringBuilder text, InstanceMetrics instance)
    {
        long count = 0;
        foreach (WakeupBucket bucket in instance.WakeupLatency)
        {
            count += bucket.Count;
            string bound = bucket.UpperBound is { } upper ? Number(upper.TotalSeconds) : "+Inf";
            text.Append(CultureInfo.InvariantCulture, $"{Histogram}_bucket{{instance_uuid=\"{instance.Uuid:D}\",le=\"{bound}\"}} {count}\n");
        }

        text.Append(CultureInfo.InvariantCulture, $"{Histogram}_sum{{instance_uuid=\"{instance.Uuid:D}\"}} {Seconds(instance.WakeupLatencySum.TotalSeconds)}\n");
        text.Append(CultureInfo.InvariantCulture, $"{Histogram}_count{{instance_uuid=\"{instance.Uuid:D}\"}} {count}\n");
    }

    private static string Seconds(double value) => value.ToString("F6", CultureInfo.InvariantCulture);

    private static string Number(double value) => value.ToString("0.############", CultureInfo.InvariantCulture);
}
