using System.Globalization;
using System.Text;
using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Contracts.Modeling;

/// <summary>Carries a script out on a platform and on the model, and compares the two after every command.</summary>
public sealed partial class ModelRun
{
    private static readonly TimeSpan Latency = TimeSpan.FromMilliseconds(777);

    private readonly TimeSpan _patience;
    private readonly PlatformModel _model;
    private readonly StringBuilder _history = new();
    private readonly Dictionary<string, Stack<IInstanceConnection>> _connections = new(StringComparer.Ordinal);
    private readonly List<(string Instance, Task<Instance> Stop)> _drains = [];
    private readonly Dictionary<string, int> _starts = new(StringComparer.Ordinal);
    private readonly DateTimeOffset _begin;
    private ModelHost _host;
    private IAsyncEnumerable<InstanceTransition> _watch;
    private bool _isFirstHost = true;
    private int _lastName;

    /// <param name="host">The platform.</param>
    /// <param name="patience">How long the platform may take, in real time, until it is where the model is.</param>
    public ModelRun(ModelHost host, TimeSpan? patience = null)
    {
        ArgumentNullException.ThrowIfNull(host);
        _host = host;
        _model = new PlatformModel(ModelHost.Quota, NameInTests);
        _patience = Patience.For(patience ?? TimeSpan.FromSeconds(20));
        _watch = host.Platform.Instances.WatchAllAsync();
        _begin = host.Time?.GetUtcNow() ?? default;
    }

    /// <summary>What was done so far, in words.</summary>
    public string History => _history.ToString();

    /// <summary>For tests of the tests: changes what the model expects after a branch.</summary>
    public Action<ModelInstance>? Mistake { get; init; }

    private IInstanceManager Instances => _host.Platform.Instances;

    private ICheckpointStore Checkpoints => _host.Platform.Checkpoints;

    private ITemplateStore Templates => _host.Platform.Templates;

    private IVolumeStore Volumes => _host.Platform.Volumes;

    /// <summary>Carries a script out, ends the platform, and checks what a reader of all transitions has seen since the beginning.</summary>
    /// <param name="script">The script.</param>
    public async Task RunAsync(IReadOnlyList<ModelCommand> script)
    {
        ArgumentNullException.ThrowIfNull(script);
        foreach (ModelCommand command in script)
        {
            await StepAsync(command);
            await SettleAsync();
        }

        await CheckVolumesAsync();
        await _host.Platform.DisposeAsync().Guarded();
        await EndHostAsync();
        CheckStarts();
    }

    private static async Task<ModelError> TryAsync(Func<Task> operation)
    {
        try
        {
            await operation().Guarded();
            return ModelError.None;
        }
        catch (OperationCanceledException)
        {
            return ModelError.Cancelled;
        }
        catch (PlatformException error)
        {
            return error switch
            {
                InvalidRequestException => ModelError.Invalid,
                WrongStateException => ModelError.WrongState,
                DeletionProtectedException => ModelError.Locked,
                QuotaExceededException => ModelError.Quota,
                NameConflictException => ModelError.Conflict,
                ResourceNotFoundException => ModelError.NotFound,
                VolumeBusyException => ModelError.Busy,
                OperationTimedOutException => ModelError.TimedOut,
                { Code: PlatformErrorCode.InsufficientLicense } => ModelError.License,
                { Code: PlatformErrorCode.HypervisorFailed } => ModelError.Failed,
                _ => throw new InvalidOperationException($"No operation should fail with {error.Code}.", error),
            };
        }
    }

    private static KeyValuePair<string, T>? Pick<T>(SortedDictionary<string, T> from, int target, Func<T, bool>? which = null)
    {
        KeyValuePair<string, T>[] choices = [.. which is null ? from : from.Where(entry => which(entry.Value))];
        return choices.Length == 0 ? null : choices[target % choices.Length];
    }

    private Task StepAsync(ModelCommand command) => command.Operation switch
    {
        ModelOperation.Create => CreateAsync(command),
        ModelOperation.CreateCrashing => CreateCrashingAsync(command),
        ModelOperation.Branch => BranchAsync(command),
        ModelOperation.Checkpoint => CheckpointAsync(command),
        ModelOperation.Load => LoadAsync(command, _model.Checkpoints),
        ModelOperation.Clone => LoadAsync(command, _model.Templates),
        ModelOperation.Convert => ConvertAsync(command),
        ModelOperation.Start => StartAsync(command),
        ModelOperation.Stop => StopAsync(command, force: false),
        ModelOperation.Kill => StopAsync(command, force: true),
        ModelOperation.Drain => DrainAsync(command),
        ModelOperation.Suspend => SuspendAsync(command),
        ModelOperation.Connect => ConnectAsync(command),
        ModelOperation.Disconnect => DisconnectAsync(command),
        ModelOperation.Tick => TickAsync(command),
        ModelOperation.Mark => MarkAsync(command),
        ModelOperation.Exit => ExitAsync(command),
        ModelOperation.Fork => ForkAsync(command),
        ModelOperation.Delete => DeleteAsync(command, _model.Instances, name => Instances.DeleteAsync(name)),
        ModelOperation.DeleteCheckpoint => DeleteAsync(command, _model.Checkpoints, name => Checkpoints.DeleteAsync(name)),
        ModelOperation.DeleteTemplate => DeleteAsync(command, _model.Templates, name => Templates.DeleteAsync(name)),
        ModelOperation.Patch => PatchAsync(command, isBad: false),
        ModelOperation.BadPatch => PatchAsync(command, isBad: true),
        ModelOperation.Refuse => RefuseAsync(command),
        ModelOperation.Log => ReadLogAsync(command),
        ModelOperation.Wait => WaitAsync(TimeSpan.FromSeconds((command.Variant % 40) + 1)),
        ModelOperation.WaitFor => WaitForAsync(command),
        ModelOperation.RestartHost => RestartHostAsync(command),
        ModelOperation.CreateStore => CreateStoreAsync(command),
        ModelOperation.Put => PutAsync(command),
        ModelOperation.Get => GetAsync(command),
        ModelOperation.CreateVolume => CreateVolumeAsync(command),
        ModelOperation.CloneVolume => CloneVolumeAsync(command),
        ModelOperation.Attach => AttachAsync(command),
        ModelOperation.Detach => DetachAsync(command),
        ModelOperation.Resize => ResizeAsync(command),
        ModelOperation.ConvertVolume => ConvertVolumeAsync(command),
        ModelOperation.DeleteVolume => DeleteVolumeAsync(command),
        ModelOperation.PatchVolume => PatchVolumeAsync(command),
        _ => throw new ArgumentOutOfRangeException(nameof(command), command, message: null),
    };

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

    private async Task DeleteAsync<T>(ModelCommand command, SortedDictionary<string, T> from, Func<string, Task> delete)
        where T : ModelResource
    {
        if (Pick(from, command.Target) is not (string name, T model))
        {
            return;
        }

        Say($"delete {name}");
        Assert.Equal(model.IsLocked ? ModelError.Locked : ModelError.None, await TryAsync(() => delete(name)));
        if (!model.IsLocked)
        {
            from.Remove(name);
        }
    }

    private async Task PatchAsync(ModelCommand command, bool isBad)
    {
        (char Kind, string Name, ModelResource Model)[] all =
        [
            .. _model.Instances.Select(entry => ('i', entry.Key, (ModelResource)entry.Value)),
            .. _model.Checkpoints.Select(entry => ('c', entry.Key, (ModelResource)entry.Value)),
            .. _model.Templates.Select(entry => ('t', entry.Key, (ModelResource)entry.Value)),
        ];
        if (all.Length == 0)
        {
            return;
        }

        (char kind, string name, ModelResource model) = all[command.Target % all.Length];
        Dice dice = new((ulong)command.Variant);
        ModelInstance? instance = model as ModelInstance;
        PatchOperation[] operations =
        [
            .. Enumerable.Range(0, dice.Next(3) + 1).Select(_ => NewOperation(dice)),
            .. instance is null ? [] : NewInstanceOperations(instance, dice),
        ];
        // Only instances can be told what to boot with, and what is deleted when it stops cannot scale to zero.
        PatchOperation bad = instance switch
        {
            null => new PatchOperation.SetVcpus(1),
            { DeleteOnStop: true } when dice.Next(2) == 0 => new PatchOperation.SetScaleToZero(new ScaleToZero(Stateful: true, Seconds(20))),
            _ => dice.Next(2) == 0 ? new PatchOperation.AddTags("a b") : new PatchOperation.SetMemoryMb(0),
        };
        PatchOperation[] sent = isBad ? [.. operations, bad] : operations;
        Say($"patch {name}: {string.Join(", ", sent.Select(operation => operation.ToString()))}");
        ModelError error = await TryAsync(() => kind switch
        {
            'i' => Instances.PatchAsync(name, sent),
            'c' => Checkpoints.PatchAsync(name, sent),
            _ => Templates.PatchAsync(name, sent),
        });
        Assert.Equal(isBad ? ModelError.Invalid : ModelError.None, error);
        if (isBad)
        {
            return;
        }

        if (instance is not null)
        {
            _model.Patch(instance, operations);
            return;
        }

        foreach (PatchOperation operation in operations)
        {
            model.Apply(operation);
        }
    }

    // The names of images are those of files.
    private string NameInTests(GuestImage image) =>
        string.Equals(image.Name, _host.Image(ModelBoot.Crash).Name, StringComparison.Ordinal) ? ModelBoot.Crash
        : string.Equals(image.Name, _host.Image(ModelBoot.Store).Name, StringComparison.Ordinal) ? ModelBoot.Store
        : ModelBoot.Counter;

    private PatchOperation[] NewInstanceOperations(ModelInstance instance, Dice dice)
    {
        ModelBoot next = _model.BootAfterUpdates(instance);
        Dictionary<string, string> env = new(StringComparer.Ordinal) { [$"K{dice.Next(3)}"] = $"{dice.Next(5)}" };
        return dice.Next(16) switch
        {
            0 => [new PatchOperation.SetMemoryMb(64 + (8 * dice.Next(3)))],
            1 => [new PatchOperation.SetVcpus(1 + dice.Next(2))],
            2 => [new PatchOperation.AddEnv(env), new PatchOperation.SetMemoryMb(72)],
            3 => [new PatchOperation.AddEnv(env), new PatchOperation.DelEnv($"K{dice.Next(3)}")],
            4 => [new PatchOperation.SetEnv(env)],
            5 when next.Crashes => [new PatchOperation.SetImage(_host.Image(ModelBoot.Counter)), new PatchOperation.SetArgs([.. ModelBoot.OfCounter.Args])],
            // A connection that wakes a guest which crashes at once is a race, and without virtual time the delays of restarts would be real.
            5 when next.Counts && instance.ScalesToZero is null && (_host.Time is not null || instance.Policy == RestartPolicy.Never) =>
                [new PatchOperation.SetImage(_host.Image(ModelBoot.Crash)), new PatchOperation.SetArgs([.. ModelBoot.OfCrash.Args])],
            6 when next.Counts => [new PatchOperation.AddArgs("--random")],
            7 when next.Counts => [new PatchOperation.AddArgs("--touch", "--random"), new PatchOperation.DelArgs("--random")],
            8 => [new PatchOperation.SetScaleToZero(null)],
            12 => [new PatchOperation.AddRoms(ModelBoot.Rom("rom"))],
            13 => [new PatchOperation.AddRoms(ModelBoot.Rom("more"), ModelBoot.Rom($"rom-{dice.Next(2)}")), new PatchOperation.DelRoms("rom")],
            14 => [new PatchOperation.SetRoms([.. Enumerable.Range(0, dice.Next(3)).Select(static number => ModelBoot.Rom($"rom-{number}"))])],
            9 or 10 or 11 when !next.Crashes && !instance.DeleteOnStop => [new PatchOperation.SetScaleToZero(new ScaleToZero(Stateful: dice.Next(2) == 0, Seconds(3 + dice.Next(30))))],
            _ => [],
        };
    }

    private async Task RefuseAsync(ModelCommand command)
    {
        if (Pick(_model.Instances, command.Target) is not (string name, ModelInstance _) || !_model.HasRoom(1))
        {
            return;
        }

        string fresh = NewName();
        CreateInstanceRequest counter = Request(ModelBoot.Counter, [.. ModelBoot.OfCounter.Args]) with { Name = fresh };
        string? checkpoint = Pick(_model.Checkpoints, command.Target)?.Key;
        bool isCheckpointing = IsLicensed(_host.License?.Checkpointing);
        (string What, ModelError Expected, Func<Task> Operation) = (command.Variant % 9) switch
        {
            0 => ("create another", ModelError.Conflict, () => Instances.CreateAsync(counter with { Name = name })),
            1 => ("create a negative number of replicas", ModelError.Invalid, () => Instances.CreateReplicasAsync(counter, -1)),
            2 => ("branch with an image", ModelError.Invalid, () => Instances.CreateAsync(counter with { Args = null, MemoryMb = null, BranchFrom = name })),
            3 => ("branch with arguments", ModelError.Invalid, () => Instances.CreateAsync(counter with { Image = null, MemoryMb = null, BranchFrom = name })),
            4 => ("delete on stop and restart", ModelError.Invalid, () => Instances.CreateAsync(counter with
            {
                Features = InstanceFeatures.DeleteOnStop,
                RestartPolicy = RestartPolicy.Always,
            })),
            5 => ("force and drain", ModelError.Invalid, (Func<Task>)(() => Instances.StopAsync(name, new StopRequest { Force = true, DrainTimeout = Seconds(5) }))),
            6 => ("branch nothing", IsLicensed(_host.License?.Branching) ? ModelError.NotFound : ModelError.License, () => Instances.CreateAsync(new CreateInstanceRequest { Name = fresh, BranchFrom = "nothing" })),
            7 => ("checkpoint nothing", isCheckpointing ? ModelError.NotFound : ModelError.License, () => Checkpoints.CreateAsync(new CreateCheckpointRequest { Name = fresh, From = "nothing" })),
            _ when checkpoint is not null && PlatformModel.CanClone(_model.Instances[name]) == ModelError.None =>
                ("checkpoint again as " + checkpoint, isCheckpointing ? ModelError.Conflict : ModelError.License, () => Checkpoints.CreateAsync(new CreateCheckpointRequest { Name = checkpoint, From = name })),
            _ => ("start nothing", ModelError.NotFound, () => Instances.StartAsync("nothing")),
        };
        Say($"refused for {name}: {What}");
        Assert.Equal(Expected, await TryAsync(Operation));
    }

    private Task ReadLogAsync(ModelCommand command)
    {
        if (Pick(_model.Instances, command.Target, model => model.Logged.Length > 0) is (string name, ModelInstance model))
        {
            Say($"log of {name}");
            Assert.Contains(model.Logged, Instances.ReadLog(name).Text, StringComparison.Ordinal);
        }

        return Task.CompletedTask;
    }

    private PatchOperation NewOperation(Dice dice)
    {
        string[] tags = [.. Enumerable.Range(0, dice.Next(3)).Select(_ => $"tag-{dice.Next(4)}")];
        return dice.Next(6) switch
        {
            0 => new PatchOperation.AddTags(tags),
            1 => new PatchOperation.DelTags(tags),
            2 => new PatchOperation.SetTags(tags),
            3 => new PatchOperation.SetDeleteLock(dice.Next(3) == 0),
            _ => new PatchOperation.SetAutokill(dice.Next(4) == 0 ? null : new AutokillPolicy(Seconds(20 + dice.Next(100)))),
        };
    }

    private async Task WaitAsync(TimeSpan span, Func<Task>? look = null)
    {
        if (_host.Time is not { } time)
        {
            return;
        }

        // From one event to the next: what an event sets off is on other threads, which read the clock.
        Say($"wait {span.TotalSeconds} s");
        TimeSpan end = _model.Now + span;
        while (_model.Now < end)
        {
            TimeSpan next = _model.Settle() is { } due && due < end ? due : end;
            time.Advance(next - _model.Now);
            _model.Advance(next - _model.Now);
            await SettleAsync();
            await (look?.Invoke() ?? Task.CompletedTask);
        }
    }

    /// <summary>Carries out an operation that is cancelled or fails while it is under way.</summary>
    private async Task<ModelError> InterruptedAsync(
        ModelCommand command,
        ModelError expected,
        bool interruptible,
        Func<CancellationToken, Task> operation)
    {
        if (command.Interruption == ModelInterruption.None
            || (_host.Backend is null ? command.Interruption == ModelInterruption.Fail : !interruptible || expected != ModelError.None))
        {
            ModelError error = await TryAsync(() => operation(CancellationToken.None));
            Assert.Equal(expected, error);
            return error;
        }

        if (_host.Backend is not { } backend)
        {
            using CancellationTokenSource racing = new();
            Task<ModelError> race = TryAsync(() => operation(racing.Token));
            for (int turns = command.Variant % 50; turns > 0 && !race.IsCompleted; turns--)
            {
                // So that it comes early and late.
                await Task.Run(static () => { });
            }

            await racing.CancelAsync();
            ModelError either = await race;
            Say($"  ... cancelled: {either}");
            Assert.True(either == expected || either == ModelError.Cancelled, $"Expected {expected} or Cancelled, not {either}.");
            return either;
        }

        if (command.Interruption == ModelInterruption.Fail)
        {
            Say("  ... while the backend fails");
            HypervisorException failure = new("out of order");
            (backend.CreateFailure, backend.RestoreFailure, backend.CaptureFailure) = (_ => failure, _ => failure, _ => failure);
            ModelError failed = await TryAsync(() => operation(CancellationToken.None));
            (backend.CreateFailure, backend.RestoreFailure, backend.CaptureFailure) = (null, null, null);
            Assert.Equal(ModelError.Failed, failed);
            return failed;
        }

        Say("  ... and cancel it");
        using CancellationTokenSource cancellation = new();
        (backend.CreateLatency, backend.RestoreLatency, backend.CaptureLatency) = (Latency, Latency, Latency);
        Task<ModelError> under = TryAsync(() => operation(cancellation.Token));
        await Task.WhenAny(under, _host.Time!.WaitForTimerAsync(Latency)).Guarded();
        (backend.CreateLatency, backend.RestoreLatency, backend.CaptureLatency) = (default, default, default);
        await cancellation.CancelAsync();
        ModelError outcome = await under;
        Assert.Equal(ModelError.Cancelled, outcome);
        return outcome;
    }

    /// <summary>Waits until the platform is where the model is, which it may be on the way to on other threads.</summary>
    private async Task SettleAsync()
    {
        _host.Time?.Advance(TimeSpan.Zero);
        _model.Settle();
        await UntilAsync(Difference);
        foreach (string name in _connections.Keys.ToArray())
        {
            if (!_model.Instances.TryGetValue(name, out ModelInstance? instance) || instance.Connections == 0)
            {
                _connections.Remove(name, out Stack<IInstanceConnection>? ended);
                await Task.WhenAll(ended!.Select(connection => connection.Closed)).Guarded();
            }
        }

        for (int i = _drains.Count - 1; i >= 0; i--)
        {
            if (!_model.Instances.TryGetValue(_drains[i].Instance, out ModelInstance? instance) || instance.State != InstanceState.Draining)
            {
                await Task.WhenAny(_drains[i].Stop).Guarded();
                _ = _drains[i].Stop.Exception;
                _drains.RemoveAt(i);
            }
        }
    }

    private async Task UntilAsync(Func<string?> find)
    {
        long begin = TimeProvider.System.GetTimestamp();
        for (int round = 0; find() is { } difference; round++)
        {
            if (TimeProvider.System.GetElapsedTime(begin) > _patience)
            {
                Assert.Fail(difference);
            }

            // Real guests act when they do: looked at until they have, at first without leaving the processor for long.
            await (round < 100 ? Task.Run(static () => { }) : Task.Delay(TimeSpan.FromMilliseconds(1), TimeProvider.System));
        }
    }

    private string? Difference()
    {
        IReadOnlyList<Instance> listed = Instances.List();
        if (Compare("instances", _model.Instances.Keys, listed.Select(instance => instance.Name)) is { } instances)
        {
            return instances;
        }

        foreach (Instance instance in listed)
        {
            ModelInstance model = _model.Instances[instance.Name];
            string expected = Describe(model);
            string actual = Describe(instance);
            if (!string.Equals(expected, actual, StringComparison.Ordinal))
            {
                return $"{instance.Name}: expected {expected}\n{new string(' ', instance.Name.Length)}       was {actual}";
            }
        }

        IReadOnlyList<Checkpoint> checkpoints = Checkpoints.List();
        IReadOnlyList<Template> templates = Templates.List();
        return Compare("checkpoints", _model.Checkpoints.Keys, checkpoints.Select(checkpoint => checkpoint.Name))
            ?? Compare("templates", _model.Templates.Keys, templates.Select(template => template.Name))
            ?? checkpoints.Select(checkpoint => Compare(
                checkpoint.Name,
                Describe(_model.Checkpoints[checkpoint.Name]),
                Describe(checkpoint.Tags, checkpoint.DeleteLock, checkpoint.Autokill, checkpoint.LoadCount)
                    + " " + ModelBoot.Describe(checkpoint.Image, checkpoint.Args, checkpoint.Env, checkpoint.MemoryMb, checkpoint.Vcpus, checkpoint.Roms))
                ?? Compare(
                    checkpoint.Name + " history",
                    string.Join(' ', _model.Checkpoints[checkpoint.Name].Contents.History),
                    string.Join(' ', Checkpoints.GetHistory(checkpoint.Uuid).Select(entry => entry.Name))))
                .FirstOrDefault(difference => difference is not null)
            ?? DifferenceOfVolumes()
            ?? templates.Select(template => Compare(
                template.Name,
                Describe(_model.Templates[template.Name]),
                Describe(template.Tags, template.DeleteLock, template.Autokill, template.CloneCount)
                    + " " + ModelBoot.Describe(template.Image, template.Args, template.Env, template.MemoryMb, template.Vcpus, template.Roms)))
                .FirstOrDefault(difference => difference is not null);
    }

    private string? DifferenceOfVolumes()
    {
        Volume[] all = [.. Volumes.List(), .. Volumes.ListTemplates().Where(static volume => volume.Persistent)];
        Volume[] named = [.. all.Where(static volume => volume.Persistent)];
        return Compare("volumes", _model.Volumes.Keys, named.Select(static volume => volume.Name!))
            ?? Compare(
                "volumes of instances",
                $"{_model.Instances.Values.Sum(static instance => instance.Mounts.Count(static mount => mount.Volume.Name is null))}",
                $"{all.Length - named.Length}")
            ?? named.Select(volume => Compare(volume.Name!, Describe(_model.Volumes[volume.Name!]), Describe(volume)))
                .FirstOrDefault(static difference => difference is not null);
    }

    private static string? Compare(string what, IEnumerable<string> expected, IEnumerable<string> actual) =>
        Compare(what, string.Join(' ', expected.Order(StringComparer.Ordinal)), string.Join(' ', actual.Order(StringComparer.Ordinal)));

    private static string? Compare(string what, string expected, string actual) =>
        string.Equals(expected, actual, StringComparison.Ordinal) ? null : $"{what}: expected {expected} - was {actual}";

    private string Describe(ModelBoot boot) => ModelBoot.Describe(_host.Image(boot.Image).Name, boot.Args, boot.Env, boot.MemoryMb, boot.Vcpus, boot.Roms.Select(ModelBoot.Rom));

    private string Describe(ModelStored model) => Describe(
        model.Tags,
        model.IsLocked,
        model.Autokill is { } autokill ? new AutokillPolicy(autokill) : null,
        model.Loads) + " " + Describe(model.Contents.Boot);

    private static string Describe(IReadOnlyList<string> tags, bool isLocked, AutokillPolicy? autokill, int loads) =>
        string.Create(CultureInfo.InvariantCulture, $"[{string.Join(',', tags)}] {isLocked} {autokill?.Time} {loads}");

    private string Describe(ModelInstance model) => string.Create(
        CultureInfo.InvariantCulture,
        $"{model.State} {model.Starts}/{model.Restarts} {(model.State == InstanceState.Draining ? "-UP--" : model.IsUp ? null : model.StopMask)} ")
        + string.Create(
            CultureInfo.InvariantCulture,
            $"restart={_model.RestartAttemptOf(model)}@{model.RestartDue} snapshot={model is { IsUp: false, Snapshot: not null }} connections={model.Connections} ")
        + Describe(model.Tags, model.IsLocked, model.Autokill is { } autokill ? new AutokillPolicy(autokill) : null, 0)
        + $" {Describe(model.Boot)} {model.ScalesToZero} updates={string.Join(", ", model.Updates.Select(Describe))} "
        + string.Join(' ', model.History)
        + Describe(model.Mounts.Where(static mount => mount.IsThere).Select(static mount => (mount.Volume.Name, mount.At, mount.IsReadOnly)));

    private string Describe(Instance instance)
    {
        string? mask = instance.StopReason?.ToMask();
        TimeSpan? due = instance.Restart?.NextAt - _begin;
        int connections = instance.State is InstanceState.Running or InstanceState.Draining
            ? Instances.GetMetrics(instance.Uuid)[0].Connections
            : 0;
        return string.Create(CultureInfo.InvariantCulture, $"{instance.State} {instance.StartCount}/{instance.RestartCount} {mask} ")
            + string.Create(
                CultureInfo.InvariantCulture,
                $"restart={instance.Restart?.Attempt}@{due} snapshot={instance.HasSnapshot} connections={connections} ")
            + Describe(instance.Tags, instance.DeleteLock, instance.Autokill, 0)
            + $" {ModelBoot.Describe(instance.Image, instance.Args, instance.Env, instance.MemoryMb, instance.Vcpus, instance.Roms)} {instance.ScaleToZero}"
            + $" updates={string.Join(", ", instance.Updates.Select(Describe))} "
            + string.Join(' ', Instances.GetHistory(instance.Uuid).Select(entry => entry.Name))
            + Describe(instance.Volumes.Select(static volume => (volume.Name, volume.At, volume.ReadOnly)));
    }

    private static string Describe(PatchOperation update)
    {
        IEnumerable<string> values = update switch
        {
            PatchOperation.SetImage set => [set.Image.Name],
            PatchOperation.SetArgs set => set.Args,
            PatchOperation.AddArgs add => add.Args,
            PatchOperation.DelArgs del => del.Args,
            PatchOperation.SetEnv set => set.Env.Select(static entry => $"{entry.Key}={entry.Value}"),
            PatchOperation.AddEnv add => add.Env.Select(static entry => $"{entry.Key}={entry.Value}"),
            PatchOperation.DelEnv del => del.Names,
            PatchOperation.SetRoms set => set.Roms.Select(static rom => rom.Name),
            PatchOperation.AddRoms add => add.Roms.Select(static rom => rom.Name),
            PatchOperation.DelRoms del => del.Names,
            _ => [update.ToString()],
        };
        return $"{update.GetType().Name} {string.Join(' ', values)}";
    }

    // Volumes that instances own have generated names or none.
    private static string Describe(IEnumerable<(string? Name, string At, bool IsReadOnly)> volumes) => string.Concat(volumes.Select(static volume =>
        $" {(volume.Name?.StartsWith("vol-", StringComparison.Ordinal) == false ? volume.Name : "own")}:{volume.At}{(volume.IsReadOnly ? ":ro" : "")}"));

    private string Describe(ModelVolume volume) => Describe(
        _model.StateOf(volume),
        volume.SizeMb,
        volume.Tags,
        volume.IsLocked,
        _model.MountsOf(volume).Select(static use => $"{use.Name}:{use.Mount.At}:{use.Mount.IsReadOnly}:{use.Instance.IsUp && use.Mount.IsThere}:{use.Mount.Pending}"));

    private static string Describe(Volume volume) => Describe(
        volume.State,
        volume.SizeMb,
        volume.Tags,
        volume.DeleteLock,
        volume.AttachedTo.Select(static use => $"{use.InstanceName}:{use.At}:{use.ReadOnly}:{use.IsMounted}:{use.Pending}"));

    private static string Describe(VolumeState state, int sizeMb, IReadOnlyList<string> tags, bool isLocked, IEnumerable<string> uses) => string.Create(
        CultureInfo.InvariantCulture,
        $"{state} {sizeMb} MiB [{string.Join(',', tags)}] {isLocked} {string.Join(' ', uses.Order(StringComparer.Ordinal))}");

    // The platform has ended: nobody waits for anything any more, and what became of its instances was told.
    private async Task EndHostAsync()
    {
        foreach ((_, Task<Instance> stop) in _drains)
        {
            // It was stopped, or ended with the platform.
            await Task.WhenAny(stop).Guarded();
            _ = stop.Exception;
        }

        _drains.Clear();
        await Task.WhenAll(_connections.Values.SelectMany(static open => open).Select(static connection => connection.Closed)).Guarded();
        _connections.Clear();

        Dictionary<Guid, (long Number, InstanceState? State)> lives = [];
        await foreach (InstanceTransition transition in _watch)
        {
            if (lives.TryGetValue(transition.Uuid, out (long Number, InstanceState? State) before) || _isFirstHost || transition.From is null)
            {
                Assert.Equal((before.Number + 1, before.State), (transition.Number, transition.From));
            }

            lives[transition.Uuid] = (transition.Number, transition.To);
            _starts[transition.Name] = _starts.GetValueOrDefault(transition.Name) + (transition.To == InstanceState.Running ? 1 : 0);
        }

        Assert.All(lives.Values, life => Assert.Null(life.State));
    }

    private void CheckStarts()
    {
        Assert.Equal(
            string.Join(' ', _model.StartsOf.OrderBy(static entry => entry.Key, StringComparer.Ordinal)),
            string.Join(' ', _starts.Where(entry => _model.StartsOf.ContainsKey(entry.Key)).OrderBy(static entry => entry.Key, StringComparer.Ordinal)));

        // A creation that is cancelled late is undone: where that is a race, its instances may have been found, and have run once, before they were gone again.
        Assert.All(
            _starts.Where(entry => !_model.StartsOf.ContainsKey(entry.Key) && entry is not { Key: Witness, Value: 0 }),
            entry => Assert.True(_host.Backend is null && entry.Value <= 1, $"{entry.Key} should not have been, and ran {entry.Value} times."));
    }

    private TimeSpan MaxDrainTimeout => _host.Time is null ? TimeSpan.FromHours(1) : ModelHost.MaxDrainTimeout;

    private ConsoleSession Attach(string name) => new(Instances.AttachConsole(name));

    private CreateInstanceRequest Request(string image, params string[] args) => new() { Image = _host.Image(image), Args = args, MemoryMb = 64 };

    // Without virtual time nothing should come due.
    private TimeSpan Seconds(int seconds) => _host.Time is null ? TimeSpan.FromHours(seconds / 60.0) : TimeSpan.FromSeconds(seconds);

    private string NewName() => string.Create(CultureInfo.InvariantCulture, $"n{++_lastName}");

    private void Say(string command) => _history.Append("  ").Append(command).Append('\n');
}
