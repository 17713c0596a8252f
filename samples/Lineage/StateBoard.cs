using Spectre.Console;
using Unikraft.Platform;

namespace Lineage;

/// <summary>The states of all instances, drawn anew with every transition.</summary>
internal sealed class StateBoard(IUnikraftPlatform platform, IAnsiConsole console)
{
    /// <summary>Shows the states while something is being done. Not in a terminal, it writes the transitions one by one.</summary>
    /// <param name="work">What is being done.</param>
    /// <param name="isLast">Says which transition is the last one that it brings about.</param>
    /// <param name="cancellationToken">Ends the reading.</param>
    public async Task ShowAsync(Func<Task> work, Func<InstanceTransition, bool> isLast, CancellationToken cancellationToken)
    {
        using var failed = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        IAsyncEnumerable<InstanceTransition> transitions = platform.Instances.WatchAllAsync(failed.Token);
        LiveDisplayContext? live = null;
        Task RunAsync() => Task.WhenAll(WorkAsync(), ReadAsync());

        async Task WorkAsync()
        {
            try
            {
                await work();
            }
            catch
            {
                await failed.CancelAsync();
                throw;
            }
        }

        async Task ReadAsync()
        {
            await foreach (InstanceTransition transition in transitions)
            {
                if (live is null)
                {
                    console.MarkupLineInterpolated($"  {transition.Name}: {transition.From?.ToText() ?? "-"} -> [bold]{transition.To?.ToText() ?? "gone"}[/]");
                }
                else
                {
                    live.UpdateTarget(Draw());
                }

                if (isLast(transition))
                {
                    break;
                }
            }
        }

        if (console.Profile.Capabilities.Interactive)
        {
            await console.Live(Draw()).StartAsync(async context =>
            {
                live = context;
                await RunAsync();
                context.UpdateTarget(Draw());
            });
        }
        else
        {
            await RunAsync();
            console.Write(Draw());
        }
    }

    private Table Draw()
    {
        Table table = new() { Border = TableBorder.Rounded };
        table.AddColumns("instance", "state", "starts", "stop reason", "boot", "uptime");
        foreach (Instance instance in platform.Instances.List())
        {
            string colour = instance.State switch
            {
                InstanceState.Running => "green",
                InstanceState.Standby => "blue",
                InstanceState.Stopped => "grey",
                _ => "yellow",
            };
            table.AddRow(
                instance.Name,
                $"[{colour}]{instance.State.ToText()}[/]",
                $"{instance.StartCount}",
                instance.StopReason?.ToMask() ?? "",
                instance.BootTime is { } boot ? $"{boot.TotalMilliseconds:F1} ms" : "",
                $"{instance.Uptime.TotalMilliseconds:F0} ms");
        }

        return table;
    }
}
