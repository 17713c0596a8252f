using System.Globalization;
using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Contracts.Modeling;

/// <content>What instances and their guests do.</content>
public sealed partial class ModelRun
{
    private async Task StartAsync(ModelCommand command)
    {
        if (Pick(_model.Instances, command.Target) is not (string name, ModelInstance model))
        {
            return;
        }

        Say($"start {name}");
        // A start from standby that is given up leaves the instance there.
        // Whether what waits for a start is done when that is cancelled is a race, too.
        bool isRace = _host.Backend is null
            && (model.RestartAttempt is not null || model.Mounts.Any(static mount => mount.Pending is not null));
        ModelError error = await InterruptedAsync(
            isRace ? command with { Interruption = ModelInterruption.None } : command,
            model.IsUp ? ModelError.WrongState : ModelError.None,
            interruptible: !model.IsUp && model.RestartAttempt is null,
            token => Instances.StartAsync(name, token));
        if (error == ModelError.None)
        {
            _model.Start(name);
        }
        else if (!model.IsUp)
        {
            PlatformModel.ApplyUpdates(model);
            PlatformModel.FailToStart(model);
            if (model.State == InstanceState.Stopped)
            {
                // A start in vain is use, too.
                model.UnusedSince = _model.Now;
            }
        }
    }

    private async Task StopAsync(ModelCommand command, bool force)
    {
        if (Pick(_model.Instances, command.Target) is not (string name, _))
        {
            return;
        }

        Say($"{(force ? "kill" : "stop")} {name}");
        Instance stopped = await Instances.StopAsync(name, new StopRequest { Force = force }).Guarded();
        Assert.Equal(InstanceState.Stopped, stopped.State);
        _model.Stop(name, force);
    }

    private async Task DrainAsync(ModelCommand command)
    {
        if (Pick(_model.Instances, command.Target) is not (string name, ModelInstance model))
        {
            return;
        }

        bool isMax = command.Variant % 2 == 0;
        TimeSpan timeout = isMax ? MaxDrainTimeout : Seconds(1 + (command.Variant % 30));
        Say($"drain {name} for {(isMax ? "as long as possible" : timeout)}");
        Task<Instance> stop = Instances.StopAsync(name, new StopRequest { DrainTimeout = isMax ? Timeout.InfiniteTimeSpan : timeout });
        _model.Drain(name, timeout);
        if (model.State == InstanceState.Draining)
        {
            _drains.Add((name, stop));
        }
        else
        {
            await stop.Guarded();
        }
    }

    private async Task SuspendAsync(ModelCommand command)
    {
        if (Pick(_model.Instances, command.Target) is not (string name, ModelInstance model))
        {
            return;
        }

        Say($"suspend {name}");
        bool runs = model.State == InstanceState.Running && !model.DeleteOnStop;
        ModelError expected = model switch
        {
            { DeleteOnStop: true } => ModelError.Invalid,
            { State: InstanceState.Running or InstanceState.Standby } => ModelError.None,
            _ => ModelError.WrongState,
        };
        if (await InterruptedAsync(command, expected, interruptible: runs, token => Instances.SuspendAsync(name, token)) == ModelError.None)
        {
            Assert.Equal(ModelError.None, _model.Suspend(name));
        }
    }

    private async Task ConnectAsync(ModelCommand command)
    {
        if (Pick(_model.Instances, command.Target) is not (string name, _))
        {
            return;
        }

        Say($"connect to {name}");
        IInstanceConnection? connection = null;
        ModelError error = await TryAsync(async () => connection = await Instances.ConnectAsync(name));
        Assert.Equal(_model.Connect(name), error);
        if (connection is not null)
        {
            if (!_connections.TryGetValue(name, out Stack<IInstanceConnection>? open))
            {
                _connections[name] = open = new Stack<IInstanceConnection>();
            }

            open.Push(connection);
        }
    }

    private Task DisconnectAsync(ModelCommand command)
    {
        if (Pick(_model.Instances, command.Target, model => model.Connections > 0) is (string name, _))
        {
            Say($"disconnect from {name}");
            _connections[name].Pop().Dispose();
            _model.Disconnect(name);
        }

        return Task.CompletedTask;
    }

    private async Task TickAsync(ModelCommand command)
    {
        if (Pick(_model.Instances, command.Target, model => model is { IsUp: true, Boot.Counts: true }) is not (string name, ModelInstance model))
        {
            return;
        }

        Say($"tick {name}");
        await using ConsoleSession console = Attach(name);
        CounterTick tick = await console.TickAsync();
        Assert.Equal(model.Live.Tick + 1, tick.Tick);
        if (model.Live.Nonce.Length > 0)
        {
            Assert.Equal(model.Live.Nonce, tick.Nonce);
        }

        model.Live = model.Live with { Nonce = tick.Nonce, Tick = tick.Tick };
        Assert.Equal(model.Live.Mark, await console.ShowAsync());
    }

    private async Task MarkAsync(ModelCommand command)
    {
        if (Pick(_model.Instances, command.Target, model => model is { IsUp: true, Boot.Counts: true }) is not (string name, ModelInstance model))
        {
            return;
        }

        string mark = string.Create(CultureInfo.InvariantCulture, $"mark-{command.Variant % 1000}");
        Say($"{mark} in {name}");
        await using ConsoleSession console = Attach(name);
        await console.WriteLineAsync($"mark {mark}");
        Assert.Equal(mark, await console.ShowAsync());
        model.Live = model.Live with { Mark = mark };
        model.Logged = $"mark={mark}\n";
    }

    private async Task ExitAsync(ModelCommand command)
    {
        if (Pick(_model.Instances, command.Target, model => model is { IsUp: true, Boot.Counts: true } && (_host.Time is not null || model.Policy != RestartPolicy.Always))
            is not (string name, _))
        {
            return;
        }

        int code = command.Variant % 100;
        Say($"exit {code} in {name}");
        Task<Instance> stopped = Instances.WaitAsync(name, InstanceState.Stopped);
        await using ConsoleSession console = Attach(name);
        await console.WriteLineAsync(string.Create(CultureInfo.InvariantCulture, $"exit {code}"));
        Assert.Equal(code, (await stopped.Guarded()).ExitCode);
        _model.Exit(name);
    }

    private async Task ForkAsync(ModelCommand command)
    {
        if (Pick(_model.Instances, command.Target, model => model is { State: InstanceState.Running, Boot.Counts: true }) is not (string source, ModelInstance model)
            || !_model.HasRoom(1))
        {
            return;
        }

        await using ConsoleSession console = Attach(source);
        await console.WriteLineAsync("fork");
        string line = await console.ReadLineAsync("fork parent child=");
        string name = Instances.Get(Guid.Parse(line["fork parent child=".Length..], CultureInfo.InvariantCulture)).Name;
        Say($"fork {source} to {name}");
        _model.Add(name, PlatformModel.Made(PlatformModel.CloneOf(model)), start: true);
    }
}
