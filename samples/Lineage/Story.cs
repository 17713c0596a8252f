using System.IO.Pipelines;
using System.Text;
using Spectre.Console;
using Unikraft.Platform;
using Unikraft.Platform.Diagnostics;

namespace Lineage;

/// <summary>Instances, checkpoints, branches and templates that descend from each other; instances that come and go; and what they used.</summary>
internal sealed class Story(IUnikraftPlatform platform, IAnsiConsole console, CancellationToken cancellationToken)
{
    private static readonly string Image = Path.Combine(AppContext.BaseDirectory, "guests", "counter.elf");

    public async Task TellAsync()
    {
        console.Write(new Rule("progress on long operations") { Justification = Justify.Left });
        await console.Progress().Columns(new TaskDescriptionColumn(), new ProgressBarColumn(), new PercentageColumn()).StartAsync(BuildAsync);

        console.Write(new Rule("lineage") { Justification = Justify.Left });
        console.Write(LineageTree.Draw(platform));
        Table history = new Table { Border = TableBorder.Rounded, Title = new TableTitle("history of inst2, newest first") }.AddColumns("checkpoint", "created");
        foreach (CheckpointReference entry in platform.Instances.GetHistory("inst2"))
        {
            history.AddRow(entry.Name, $"{entry.CreatedAt:HH:mm:ss.fff}");
        }

        console.Write(history);

        console.Write(new Rule("live states") { Justification = Justify.Left });
        await new StateBoard(platform, console).ShowAsync(
            LiveAsync,
            static transition => transition is { Name: "clone2", To: InstanceState.Stopped },
            cancellationToken);

        console.Write(new Rule("metrics") { Justification = Justify.Left });
        IReadOnlyList<InstanceMetrics> metrics = platform.Instances.GetMetrics();
        Table table = new Table { Border = TableBorder.Rounded }.AddColumns("instance", "state", "rss", "cpu", "connections", "wake-ups");
        foreach (InstanceMetrics instance in metrics)
        {
            table.AddRow(
                instance.Name,
                instance.State.ToText(),
                $"{instance.RssBytes >> 10} KiB",
                $"{instance.CpuTime.TotalMilliseconds:F1} ms",
                $"{instance.Connections} of {instance.TotalConnections}",
                $"{instance.WakeupLatency.Sum(bucket => bucket.Count)}, {instance.WakeupLatencySum.TotalMilliseconds:F1} ms");
        }

        console.Write(table);
        string[] text = MetricsExposition.ToPrometheusText(metrics).Split('\n');
        console.MarkupLineInterpolated($"[grey]as Prometheus text: {text.Length} lines, as JSON: {MetricsExposition.ToJson(metrics).Length} characters[/]");
    }

    private async Task BuildAsync(ProgressContext context)
    {
        ScaleToZero scale = new(Stateful: true, TimeSpan.FromHours(1));
        await StepAsync(context, "boot inst1", () => platform.Instances.CreateAsync(
            new CreateInstanceRequest
            {
                Name = "inst1",
                Image = GuestImage.FromFile(Image),
                Args = ["--period-ms", "0"],
                ScaleToZero = scale,
                WaitTimeout = TimeSpan.FromSeconds(10),
            },
            cancellationToken));
        await TickAsync("inst1");
        await StepAsync(context, "checkpoint chk1 of inst1", () => CheckpointAsync("inst1", "chk1"));
        await StepAsync(context, "load chk1 as inst2", () => platform.Instances.CreateAsync(
            new CreateInstanceRequest { Name = "inst2", Checkpoint = "chk1", WaitTimeout = TimeSpan.FromSeconds(10) },
            cancellationToken));
        await TickAsync("inst2");
        await StepAsync(context, "checkpoint chk2 of inst2", () => CheckpointAsync("inst2", "chk2"));
        await StepAsync(context, "branch inst2 as base", () => platform.Instances.CreateAsync(
            new CreateInstanceRequest { Name = "base", BranchFrom = "inst2", WaitTimeout = TimeSpan.FromSeconds(10) },
            cancellationToken));
        await StepAsync(context, "turn base into a template", () => platform.Templates.ConvertAsync("base", cancellationToken));

        ProgressTask clones = context.AddTask("clone base eight times", maxValue: 8);
        await Task.WhenAll(Enumerable.Range(1, 8).Select(async number =>
        {
            await platform.Instances.CreateAsync(
                new CreateInstanceRequest { Name = $"clone{number}", Template = "base", WaitTimeout = TimeSpan.FromSeconds(10) },
                cancellationToken);
            clones.Increment(1);
            Note("clone base eight times", clones);
        }));
    }

    // Standby and back by a connection, a drain that ends with its last connection, a delete.
    private async Task LiveAsync()
    {
        await platform.Instances.SuspendAsync("inst1", cancellationToken);
        using IInstanceConnection woken = await platform.Instances.ConnectAsync("inst1", cancellationToken);
        IInstanceConnection served = await platform.Instances.ConnectAsync("clone1", cancellationToken);
        Task<Instance> drain = platform.Instances.StopAsync("clone1", new StopRequest { DrainTimeout = TimeSpan.FromSeconds(30) }, cancellationToken);
        served.Dispose();
        await drain;
        await Task.WhenAll(Enumerable.Range(3, 6).Select(number => platform.Instances.DeleteAsync($"clone{number}", cancellationToken)));
        await platform.Instances.StopAsync("clone2", StopRequest.Forced, cancellationToken);
    }

    private async Task StepAsync(ProgressContext context, string what, Func<Task> step)
    {
        ProgressTask task = context.AddTask(what, maxValue: 1);
        await step();
        task.Increment(1);
        Note(what, task);
    }

    // What a bar shows in a terminal.
    private void Note(string what, ProgressTask task)
    {
        if (!console.Profile.Capabilities.Interactive)
        {
            console.MarkupLineInterpolated($"  {what}: {task.Percentage:F0} %, {task.ElapsedTime?.TotalMilliseconds:F1} ms");
        }
    }

    private Task<Checkpoint> CheckpointAsync(string from, string name) => platform.Checkpoints.CreateAsync(
        new CreateCheckpointRequest { From = from, Name = name, WaitTimeout = TimeSpan.FromSeconds(10) },
        cancellationToken);

    private async Task TickAsync(string instance)
    {
        await using IInstanceConsole attached = platform.Instances.AttachConsole(instance);
        await attached.Input.WriteAsync("tick\n"u8.ToArray(), cancellationToken);
        while (true)
        {
            ReadResult read = await attached.Output.ReadAsync(cancellationToken);
            bool isDone = Encoding.UTF8.GetString(read.Buffer).Contains("tick=", StringComparison.Ordinal) || read.IsCompleted;
            attached.Output.AdvanceTo(read.Buffer.Start, read.Buffer.End);
            if (isDone)
            {
                return;
            }
        }
    }
}
