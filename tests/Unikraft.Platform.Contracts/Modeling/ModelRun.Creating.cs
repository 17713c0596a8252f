using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Contracts.Modeling;

/// <content>What brings instances, checkpoints and templates about.</content>
public sealed partial class ModelRun
{
    private async Task CreateAsync(ModelCommand command)
    {
        Dice dice = new((ulong)command.Variant);
        bool start = dice.Next(3) > 0;
        int replicas = dice.Next(6) == 0 ? dice.Next(3) : 0;
        bool deleteOnStop = dice.Next(6) == 0;
        RestartPolicy policy = deleteOnStop ? RestartPolicy.Never : (RestartPolicy)dice.Next(3);
        ScaleToZero? scale = !deleteOnStop && dice.Next(3) == 0
            ? new ScaleToZero(Stateful: dice.Next(2) == 0, Seconds(3 + dice.Next(30)))
            : null;
        string[] tags = dice.Next(4) == 0 ? [$"tag-{dice.Next(4)}"] : [];
        bool isLocked = dice.Next(8) == 0;
        TimeSpan? autokill = dice.Next(8) == 0 ? Seconds(20 + dice.Next(100)) : null;
        string name = NewName();
        Say($"create {name} {(start ? "started" : "stopped")} {string.Join(',', tags)} lock={isLocked} autokill={autokill} replicas={replicas} delete-on-stop={deleteOnStop} {policy} {scale}");
        CreateInstanceRequest request = Request("counter", "--period-ms", "0") with
        {
            Name = name,
            Autostart = start,
            RestartPolicy = policy,
            ScaleToZero = scale,
            Features = deleteOnStop ? InstanceFeatures.DeleteOnStop : InstanceFeatures.None,
            WaitTimeout = start ? Timeout.InfiniteTimeSpan : null,
            Tags = tags,
            DeleteLock = isLocked,
            Autokill = autokill is { } time ? new AutokillPolicy(time) : null,
        };
        IReadOnlyList<Instance> created = [];
        ModelError expected = _model.HasRoom(replicas + 1) ? ModelError.None : ModelError.Quota;
        ModelError error = await InterruptedAsync(
            command,
            expected,
            interruptible: start,
            async token => created = await Instances.CreateReplicasAsync(request, replicas, token));
        if (error == ModelError.None)
        {
            foreach (Instance instance in created)
            {
                ModelInstance model = new()
                {
                    Policy = policy,
                    DeleteOnStop = deleteOnStop,
                    ScalesToZero = scale,
                    Tags = tags,
                    IsLocked = isLocked,
                    Autokill = autokill,
                };
                _model.Add(instance.Name, model, start);
            }
        }
    }

    private async Task CreateCrashingAsync(ModelCommand command)
    {
        Dice dice = new((ulong)command.Variant);
        bool start = dice.Next(3) > 0;
        // Without virtual time the delays of restarts would be real.
        RestartPolicy policy = _host.Time is null ? RestartPolicy.Never : (RestartPolicy)dice.Next(3);
        bool deleteOnStop = policy == RestartPolicy.Never && dice.Next(3) == 0;
        string name = NewName();
        Say($"create {name} crashing {(start ? "started" : "stopped")} {policy} delete-on-stop={deleteOnStop}");
        ModelError error = await TryAsync(() => Instances.CreateAsync(Request("crash", "div0") with
        {
            Name = name,
            Autostart = start,
            RestartPolicy = policy,
            Features = deleteOnStop ? InstanceFeatures.DeleteOnStop : InstanceFeatures.None,
        }));
        Assert.Equal(_model.HasRoom(1) ? ModelError.None : ModelError.Quota, error);
        if (error == ModelError.None)
        {
            _model.Add(name, new ModelInstance { Boot = ModelBoot.OfCrash, Policy = policy, DeleteOnStop = deleteOnStop }, start);
        }
    }

    private async Task BranchAsync(ModelCommand command)
    {
        if (Pick(_model.Instances, command.Target) is not (string source, ModelInstance model))
        {
            return;
        }

        bool start = command.Variant % 2 == 0;
        int replicas = ReplicasOf(command);
        string? rom = FurtherRomOf(command);
        string name = NewName();
        Say($"branch {source} to {name} {(start ? "started" : "stopped")} replicas={replicas} rom={rom}");
        ModelError expected = !IsLicensed(_host.License?.Branching) ? ModelError.License
            : !_model.HasRoom(replicas + 1) ? ModelError.Quota
            : PlatformModel.CanClone(model) is var refused and not ModelError.None ? refused
            : rom is not null && model.Boot.Roms.Contains(rom) ? ModelError.Invalid
            : ModelError.None;
        IReadOnlyList<Instance> created = [];
        ModelError error = await InterruptedAsync(
            command,
            expected,
            interruptible: model.IsUp || (start && !model.Crashes),
            async token => created = await Instances.CreateReplicasAsync(
                new CreateInstanceRequest
                {
                    Name = name,
                    BranchFrom = source,
                    Roms = rom is null ? null : [ModelBoot.Rom(rom)],
                    Autostart = start,
                    WaitTimeout = start && !model.Crashes ? Timeout.InfiniteTimeSpan : null,
                },
                replicas,
                token));
        if (error == ModelError.None)
        {
            ModelInstance contents = PlatformModel.CloneOf(model);
            AddClones(created, start, () => PlatformModel.Made(contents, rom), Mistake);
        }
    }

    private async Task CheckpointAsync(ModelCommand command)
    {
        if (Pick(_model.Instances, command.Target) is not (string source, ModelInstance model))
        {
            return;
        }

        TimeSpan? autokill = command.Variant % 4 == 0 ? Seconds(20 + (command.Variant % 100)) : null;
        string name = NewName();
        Say($"checkpoint {source} as {name} autokill={autokill}");
        ModelError expected = !IsLicensed(_host.License?.Checkpointing) ? ModelError.License
            : !_model.HasRoom(1) ? ModelError.Quota
            : PlatformModel.CanClone(model);
        ModelError error = await InterruptedAsync(
            command,
            expected,
            interruptible: model.IsUp,
            token => Checkpoints.CreateAsync(
                new CreateCheckpointRequest
                {
                    Name = name,
                    From = source,
                    Autokill = autokill is { } time ? new AutokillPolicy(time) : null,
                    WaitTimeout = Timeout.InfiniteTimeSpan,
                },
                token));
        if (error == ModelError.None)
        {
            _model.Checkpoint(name, model, autokill);
        }
    }

    private async Task LoadAsync<T>(ModelCommand command, SortedDictionary<string, T> from)
        where T : ModelStored
    {
        if (Pick(from, command.Target) is not (string source, T stored))
        {
            return;
        }

        bool start = command.Variant % 2 == 0;
        int replicas = ReplicasOf(command);
        string? rom = FurtherRomOf(command);
        string name = NewName();
        Say($"load {source} as {name} {(start ? "started" : "stopped")} replicas={replicas} rom={rom}");
        bool isTemplate = stored is ModelTemplate;
        IReadOnlyList<Instance> created = [];
        ModelError error = await InterruptedAsync(
            command,
            !_model.HasRoom(replicas + 1) ? ModelError.Quota : rom is not null && stored.Contents.Boot.Roms.Contains(rom) ? ModelError.Invalid : ModelError.None,
            interruptible: start && !stored.Contents.Crashes,
            async token => created = await Instances.CreateReplicasAsync(
                new CreateInstanceRequest
                {
                    Name = name,
                    Checkpoint = isTemplate ? (NameOrUuid?)null : source,
                    Template = isTemplate ? source : (NameOrUuid?)null,
                    Roms = rom is null ? null : [ModelBoot.Rom(rom)],
                    Autostart = start,
                    WaitTimeout = start && !stored.Contents.Crashes ? Timeout.InfiniteTimeSpan : null,
                },
                replicas,
                token));
        if (error == ModelError.None)
        {
            AddClones(created, start, () =>
            {
                _model.Load(stored);
                ModelInstance made = PlatformModel.Made(stored.Contents, rom);
                made.History = isTemplate ? stored.Contents.History : [source, .. stored.Contents.History];
                made.Autokill = isTemplate ? stored.Autokill : null;
                return made;
            });
        }
    }

    private static string? FurtherRomOf(ModelCommand command) => command.Variant % 5 == 0 ? $"rom-{command.Variant / 5 % 4}" : null;

    private static int ReplicasOf(ModelCommand command) => command.Variant % 7 == 0 ? 1 + (command.Variant / 7 % 2) : 0;

    private void AddClones(IReadOnlyList<Instance> created, bool start, Func<ModelInstance> make, Action<ModelInstance>? mistake = null)
    {
        foreach (Instance instance in created)
        {
            ModelInstance made = make();
            if (!start)
            {
                PlatformModel.Keep(made.Snapshot);
            }

            _model.Add(instance.Name, made, start);
            mistake?.Invoke(made);
        }
    }

    private bool IsLicensed(bool? isIncluded) =>
        _host.License is not { } license || (isIncluded == true && !(_begin + _model.Now >= license.ValidUntil));

    private async Task ConvertAsync(ModelCommand command)
    {
        if (Pick(_model.Instances, command.Target) is not (string name, ModelInstance model))
        {
            return;
        }

        bool fromInside = model.State == InstanceState.Running && model.Boot.Counts && command.Interruption == ModelInterruption.None && command.Variant % 2 == 0;
        Say($"convert {name}{(fromInside ? " from inside" : "")}");
        ModelError error = ModelError.None;
        if (fromInside)
        {
            Task<Instance> gone = Instances.WaitAsync(name, InstanceState.Standby);
            await using ConsoleSession console = Attach(name);
            await console.WriteLineAsync("template");
            await Assert.ThrowsAsync<ResourceNotFoundException>(() => gone.Guarded());
        }
        else
        {
            error = await InterruptedAsync(
                command,
                PlatformModel.CanClone(model),
                interruptible: model.IsUp,
                token => Templates.ConvertAsync(name, token));
        }

        if (error == ModelError.None)
        {
            _model.Convert(name);
        }
    }
}
