namespace Unikraft.Platform.Contracts.Modeling;

/// <content>Hosts that are restarted, and waiting.</content>
public sealed partial class ModelRun
{
    /// <summary>An instance of which the model knows nothing, and which never runs.</summary>
    private const string Witness = "witness";

    private async Task RestartHostAsync(ModelCommand command)
    {
        if (_host.Restart is not { } restart)
        {
            return;
        }

        bool isKilled = command.Variant % 2 == 0;
        Say(isKilled ? "kill the host" : "end the host in order");
        if (isKilled)
        {
            // What is there to be kept is written, and with it the time that has passed.
            foreach (string name in _model.Instances.Keys.Take(1))
            {
                await Instances.PatchAsync(name, []).Guarded();
            }

            foreach (string name in _model.Checkpoints.Keys.Take(1))
            {
                await Checkpoints.PatchAsync(name, []).Guarded();
            }

            foreach (string name in _model.Templates.Keys.Take(1))
            {
                await Templates.PatchAsync(name, []).Guarded();
            }

            if (_model.Instances.Count + _model.Checkpoints.Count + _model.Templates.Count == 0)
            {
                // Nobody was told of the last one that has expired: it is gone for good with the next change that somebody is told of.
                await Instances.CreateAsync(Request("counter") with { Name = Witness, Autostart = false }).Guarded();
                await Instances.DeleteAsync(Witness).Guarded();
            }
        }

        _host = await restart(isKilled).Guarded();
        await EndHostAsync();
        _isFirstHost = false;
        _watch = Instances.WatchAllAsync();
        _model.RestartHost();
        foreach (ModelInstance instance in _model.Instances.Values.Where(_ => isKilled))
        {
            // The last second of what it wrote may be lost.
            instance.Logged = "";
        }
    }

    private async Task WaitForAsync(ModelCommand command)
    {
        if (Pick(_model.Instances, command.Target) is not (string name, ModelInstance model))
        {
            return;
        }

        InstanceState state = (command.Variant % 4) switch
        {
            0 => InstanceState.Running,
            1 => InstanceState.Stopped,
            2 => InstanceState.Standby,
            _ => InstanceState.Draining,
        };

        // Between two moments at which something happens. Without virtual time nothing does, however long it is waited.
        TimeSpan timeout = _host.Time is null ? TimeSpan.FromMilliseconds(1) : TimeSpan.FromSeconds((command.Variant % 40) + 0.5);
        TimeSpan deadline = _model.Now + timeout;
        Say($"wait {timeout.TotalSeconds} s for {name} to be {state}");
        _model.Events.Clear();
        if (model.Passed.Contains(state))
        {
            _model.Events.Add(new ModelEvent(name, state, _model.Now));
        }

        Task<ModelError> wait = TryAsync(() => Instances.WaitAsync(name, state, timeout));
        bool IsOver(ModelEvent happened) => happened.At < deadline
            && string.Equals(happened.Name, name, StringComparison.Ordinal)
            && (happened.State is null || happened.State == state);

        // Whoever waits hears of it on another thread, before which no time may pass.
        await WaitAsync(TimeSpan.FromSeconds((command.Variant % 40) + 1), () => _model.Events.Any(IsOver) ? wait : Task.CompletedTask);
        Assert.Equal(
            !_model.Events.Any(IsOver) ? ModelError.TimedOut : _model.Events.First(IsOver).State is null ? ModelError.NotFound : ModelError.None,
            await wait);
    }
}
