using System.Diagnostics;
using System.Text.Json;
using Unikraft.Platform.Kvm;
using Unikraft.Platform.Latency;
using Unikraft.Platform.Latency.Measures;

const int Usage = 64;
const int NoKvm = 3;
const int SomeFailed = 1;
const int CannotWrite = 73;
const int Interrupted = 130;

IMeasure[] measures =
[
    new ExitRoundtrip(),
    new BootFlat(),
    new PauseHost(),
    new PauseGuest(),
    new PauseFlat(),
    new PauseRate(),
    new PauseNaive(),
    new WriteTax(),
    new Fork(isPooled: true),
    new Fork(isPooled: false),
    new BranchTotal(),
    new BranchSeries(),
    new ResumeTotal(),
    new CaptureCancel(),
    new CheckpointBytes(),
    new DepthLoad(),
    new CloneRate(),
    new CloneMemory(),
    new StorePublish(),
    new StoreRecover(),
    new StoreVerify(),
    new VolumeCutPause(),
    new VolumeClone(),
    new VolumeTransfer(isWrite: false),
    new VolumeTransfer(isWrite: true),
    new VolumeDepth(),
];

if (CommandLine.Parse(args, [.. measures.Select(measure => measure.Name)], out string? problem) is not { } options)
{
    await Console.Error.WriteLineAsync(
        $"""
        {problem}
        usage: Unikraft.Platform.Latency --json FILE [--measures NAME,...]... [--samples N] [--rows N] [--quick]
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
List<string> failed = [];
try
{
    using FloorProgram? floor = await FloorProgram.BuildAsync(interrupt.Token);
    MeasureContext context = new(floor, options.Samples, options.IsQuick);
    ResultTable.WriteHeader(Console.Out);
    foreach (IMeasure measure in measures.Where(measure => options.Measures.Count == 0 || options.Measures.Contains(measure.Name)))
    {
        long start = Stopwatch.GetTimestamp();
        try
        {
            await foreach (Measurement row in measure.RunAsync(context, interrupt.Token).Take(options.Rows ?? int.MaxValue))
            {
                rows.Add(row);
                ResultTable.WriteRow(Console.Out, row);
            }
        }
        catch (Exception error) when (error is not OperationCanceledException || !interrupt.IsCancellationRequested)
        {
            // The others are still worth having.
            failed.Add(measure.Name);
            await Console.Error.WriteLineAsync($"{measure.Name} failed: {error}");
        }

        await Console.Error.WriteLineAsync($"{measure.Name} took {Stopwatch.GetElapsedTime(start).TotalSeconds:0} s");

        // Written after each measure, so that whatever becomes of the next one, this one is kept.
        await WriteAsync();
    }
}
catch (OperationCanceledException) when (interrupt.IsCancellationRequested)
{
    await WriteAsync();
    await Console.Error.WriteLineAsync("Interrupted: the results so far are written.");
    return Interrupted;
}
catch (Exception error) when (error is IOException or UnauthorizedAccessException)
{
    await Console.Error.WriteLineAsync($"The results cannot be written: {error.Message}");
    return CannotWrite;
}

if (failed.Count == 0)
{
    return 0;
}

await Console.Error.WriteLineAsync($"Failed: {string.Join(", ", failed)}");
return SomeFailed;

Task WriteAsync() => File.WriteAllBytesAsync(
    options.JsonPath,
    JsonSerializer.SerializeToUtf8Bytes(rows, MeasurementSerializer.Default.IReadOnlyListMeasurement),
    CancellationToken.None);
