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
