using System.Text.Json;
using Unikraft.Platform.Kvm;
using Unikraft.Platform.Latency;
using Unikraft.Platform.Latency.Measures;

const int Usage = 64;
const int NoKvm = 3;
const int CannotWrite = 73;
const int Interrupted = 130;

IMeasure[] measures =
[
    new ExitRoundtrip(),
    new BootFlat(),
    new PauseHost(),
    new PauseFlat(),
    new PauseRate(),
    new PauseNaive(),
    new ForkCold(),
];

if (CommandLine.Parse(args, [.. measures.Select(measure => measure.Name)], out string? problem) is not { } options)
{
    await Console.Error.WriteLineAsync(
        $"""
        {problem}
        usage: Unikraft.Platform.Latency --json FILE [--measure NAME]... [--quick]
        measures: {string.Join(", ", measures.Select(measure => measure.Name))}
        """);
    return Usage;
}

KvmSupport support = KvmProbe.Check();
if (!support.IsUsable)
{
    await Console.Error.WriteLineAsync($"KVM cannot be used, so there is nothing to measure. {support.Message}");
    return NoKvm;
}

using CancellationTokenSource interrupt = new();
Console.CancelKeyPress += (_, pressed) =>
{
    pressed.Cancel = true;
    interrupt.Cancel();
};

List<Measurement> rows = [];
try
{
    using FloorProgram? floor = await FloorProgram.BuildAsync(interrupt.Token);
    MeasureContext context = new(floor, options.IsQuick);
    ResultTable.WriteHeader(Console.Out);
    foreach (IMeasure measure in measures.Where(measure => options.Measures.Count == 0 || options.Measures.Contains(measure.Name)))
    {
        await foreach (Measurement row in measure.RunAsync(context, interrupt.Token))
        {
            rows.Add(row);
            ResultTable.WriteRow(Console.Out, row);
        }
    }
}
catch (OperationCanceledException) when (interrupt.IsCancellationRequested)
{
    await Console.Error.WriteLineAsync("Interrupted: nothing is written.");
    return Interrupted;
}

try
{
    byte[] json = JsonSerializer.SerializeToUtf8Bytes(rows, MeasurementSerializer.Default.IReadOnlyListMeasurement);
    await File.WriteAllBytesAsync(options.JsonPath, json, CancellationToken.None);
    return 0;
}
catch (Exception error) when (error is IOException or UnauthorizedAccessException)
{
    await Console.Error.WriteLineAsync($"The results cannot be written: {error.Message}");
    return CannotWrite;
}
