using Unikraft.Platform.Contracts;
using Unikraft.Platform.Storage.Tests.Testing;
using Unikraft.Platform.Volumes;

namespace Unikraft.Platform.Storage.Tests.Recovery;

/// <summary>A script of what instances with volumes do: start, branch, checkpoint, load, template, attach, detach, delete; and what must be there of it, to the sector.</summary>
internal sealed class LineageModel
{
    private const int SizeMb = 1;

    private State _acknowledged = new();
    private Step? _underWay;
    private int _stamp;

    /// <summary>All there is to do, in order.</summary>
    internal static IReadOnlyList<Step> Script { get; } =
    [
        Create("data"),
        Create("extra"),
        new("start source", platform => CreateAsync(platform, "source", "kv", Existing("data"), Owned), state => state.Instances["source"] = new()
        {
            ["/data"] = state.Volumes["data"],
            ["/own"] = new SectorModel(SizeMb),
        }),
        Write("source", "/data"),
        Write("source", "/own"),
        new("branch", platform => CreateAsync(platform, new CreateInstanceRequest { Name = "branch", BranchFrom = "source" }), static state => state.Instances["branch"] = Copy(state.Instances["source"])),
        Write("source", "/data"),
        Write("branch", "/data"),
        new("checkpoint", platform => platform.CheckpointAsync("source", "point"), static state => state.Checkpoints["point"] = Copy(state.Instances["source"])),
        Write("source", "/own"),
        new("load", platform => CreateAsync(platform, new CreateInstanceRequest { Name = "loaded", Checkpoint = "point" }), static state => state.Instances["loaded"] = Copy(state.Checkpoints["point"])),
        Write("loaded", "/data"),
        new("start base", platform => CreateAsync(platform, "base", "kv", Owned), static state => state.Instances["base"] = new() { ["/own"] = new SectorModel(SizeMb) }),
        Write("base", "/own"),
        new("template", platform => platform.Templates.ConvertAsync("base").Guarded(), static state =>
        {
            _ = state.Instances.Remove("base", out Dictionary<string, SectorModel>? volumes);
            state.Templates["base"] = volumes!;
        }),
        new("create of a template", platform => CreateAsync(platform, new CreateInstanceRequest { Name = "made", Template = "base" }), static state => state.Instances["made"] = Copy(state.Templates["base"])),
        Write("made", "/own"),
        new("attach", platform => platform.Platform.Volumes.AttachAsync("extra", new AttachVolumeRequest { Instance = "source", At = "/extra" }).Guarded(), static state => state.Pending["source"] = VolumeUpdate.Attach)
        {
            IsDone = static platform => PendingOf(platform, "extra") == VolumeUpdate.Attach,
        },
        Stop("source"),
        Start("source"),
        Write("source", "/extra"),
        new("detach", platform => platform.Platform.Volumes.DetachAsync("extra").Guarded(), static state => state.Pending["source"] = VolumeUpdate.Detach)
        {
            IsDone = static platform => PendingOf(platform, "extra") == VolumeUpdate.Detach,
        },
        Stop("source"),
        new("checkpoint of a stopped instance", platform => platform.CheckpointAsync("source", "still"), static state => state.Checkpoints["still"] = Copy(state.Instances["source"])),
        Start("source"),
        Write("source", "/data"),
        new("delete branch", platform => platform.Instances.DeleteAsync("branch").Guarded(), static state => state.Instances.Remove("branch")),
        new("delete loaded", platform => platform.Instances.DeleteAsync("loaded").Guarded(), static state => state.Instances.Remove("loaded")),
        new("delete checkpoint", platform => platform.Checkpoints.DeleteAsync("point").Guarded(), static state => state.Checkpoints.Remove("point")),
        new("delete made", platform => platform.Instances.DeleteAsync("made").Guarded(), static state => state.Instances.Remove("made")),
        new("delete template", platform => platform.Templates.DeleteAsync("base").Guarded(), static state => state.Templates.Remove("base")),
        new("delete volume", platform => platform.Platform.Volumes.DeleteAsync("extra").Guarded(), static state => state.Volumes.Remove("extra")),
        Write("source", "/own"),
    ];

    /// <summary>Does a step.</summary>
    /// <exception cref="Exception">It failed, and nothing is counted on but what may be of a write.</exception>
    internal async Task DoAsync(DurablePlatform platform, Step step)
    {
        _underWay = step;
        if (step is { Instance: { } instance, At: { } at })
        {
            await _acknowledged.Instances[instance][at].WriteAsync(platform.DeviceOf(instance, at), ++_stamp);
        }
        else
        {
            await step.Act(platform);
        }

        _acknowledged = _acknowledged.After(step);
        _underWay = null;
    }

    /// <summary>Whether the step that failed has done all but write it down; else it has done nothing.</summary>
    internal bool IsDone(DurablePlatform platform)
    {
        Step step = _underWay!;
        State after = _acknowledged.After(step);
        string found = Describe(platform);
        bool isDone = step.IsDone?.Invoke(platform)
            ?? (string.Equals(found, after.ToString(), StringComparison.Ordinal) && !string.Equals(found, _acknowledged.ToString(), StringComparison.Ordinal));
        _acknowledged = isDone ? after : _acknowledged;
        _underWay = null;
        return isDone;
    }

    /// <summary>What there is by its name, and what is on the volumes of everybody.</summary>
    /// <param name="platform">The platform.</param>
    /// <param name="context">For the message of a failure.</param>
    /// <param name="isRestarted">Whether all instances have been stopped by an end of the host.</param>
    /// <returns>The volumes that can be told by what they hold, with that.</returns>
    internal async Task<Dictionary<Guid, SectorModel>> CheckAsync(DurablePlatform platform, string context, bool isRestarted = false)
    {
        // Volumes of a snapshot that was deleted go a little later than that.
        int kept = isRestarted ? platform.Platform.Volumes.ListTemplates().Count : 0;
        string found = Describe(platform) + $", kept {kept}";
        State[] possible = _underWay is { } step ? [_acknowledged, _acknowledged.After(step)] : [_acknowledged];

        // All instances have stopped, which some of it waited for.
        possible = isRestarted ? [.. possible, .. possible.Select(static state => state.After(Stop("source")))] : possible;
        State? state = Array.Find(possible, each => string.Equals(found, $"{each}, kept {(isRestarted ? each.Kept : 0)}", StringComparison.Ordinal));
        Assert.True(state is not null, $"{context}: acknowledged\n{_acknowledged}\nunder way '{_underWay?.Name}', found\n{found}");
        Dictionary<Guid, SectorModel> volumes = [];
        foreach ((string name, Dictionary<string, SectorModel> held) in state!.Instances)
        {
            if (isRestarted && platform.Instances.Get(name).State == InstanceState.Stopped)
            {
                await StartAsync(platform, name);
            }

            Instance instance = platform.Instances.Get(name);
            foreach (AttachedVolume volume in instance.Volumes.Where(volume => held.ContainsKey(volume.At)))
            {
                volumes[volume.Uuid] = held[volume.At];
                if (instance.State == InstanceState.Running)
                {
                    await held[volume.At].AssertHeldByAsync(platform.DeviceOf(name, volume.At), $"{context}: {volume.At} of {name}");
                }
            }

            if (instance.State == InstanceState.Running)
            {
                Assert.StartsWith("keys=", await platform.AskAsync(name, "count"), StringComparison.Ordinal);
            }
        }

        if (isRestarted)
        {
            foreach ((string name, Dictionary<string, SectorModel> held) in state.Checkpoints)
            {
                await CheckCloneAsync(platform, new CreateInstanceRequest { Checkpoint = name }, held, $"{context}: checkpoint {name}");
            }

            foreach ((string name, Dictionary<string, SectorModel> held) in state.Templates)
            {
                await CheckCloneAsync(platform, new CreateInstanceRequest { Template = name }, held, $"{context}: template {name}");
            }
        }

        foreach (AttachedVolume volume in platform.Checkpoints.List().SelectMany(static checkpoint => checkpoint.Volumes).Concat(platform.Templates.List().SelectMany(static template => template.Volumes)))
        {
            Assert.Contains(platform.Platform.Volumes.ListTemplates(), template => template.Uuid == volume.Uuid);
        }

        foreach (Checkpoint checkpoint in platform.Checkpoints.List())
        {
            foreach (AttachedVolume volume in checkpoint.Volumes)
            {
                volumes[volume.Uuid] = state.Checkpoints[checkpoint.Name][volume.At];
            }
        }

        return volumes;
    }

    private static async Task CheckCloneAsync(DurablePlatform platform, CreateInstanceRequest request, Dictionary<string, SectorModel> held, string context)
    {
        Instance clone = await platform.Instances.CreateAsync(request with { WaitTimeout = Timeout.InfiniteTimeSpan }).Guarded();
        foreach ((string at, SectorModel model) in held)
        {
            await model.AssertHeldByAsync(platform.DeviceOf(clone.Uuid, at), $"{context}, {at}");
        }

        await platform.Instances.DeleteAsync(clone.Uuid).Guarded();
    }

    private static string Describe(DurablePlatform platform) => State.Text(
        platform.Instances.List().Select(static instance => (instance.Name, instance.Volumes.Select(static volume => volume.At))),
        platform.Checkpoints.List().Select(static checkpoint => (checkpoint.Name, checkpoint.Volumes.Select(static volume => volume.At))),
        platform.Templates.List().Select(static template => (template.Name, template.Volumes.Select(static volume => volume.At))),
        platform.Platform.Volumes.List().Where(static volume => volume.Persistent).Select(static volume => volume.Name!),
        platform.Platform.Volumes.List().Count(static volume => !volume.Persistent));

    private static Step Create(string name) => new(
        $"create {name}",
        platform => platform.Platform.Volumes.CreateAsync(new CreateVolumeRequest { Name = name, SizeMb = SizeMb, Filesystem = VolumeFilesystem.None }).Guarded(),
        state => state.Volumes[name] = new SectorModel(SizeMb));

    private static Step Write(string instance, string at) => new($"write to {at} of {instance}", static _ => Task.CompletedTask, static _ => { }) { Instance = instance, At = at };

    private static Step Start(string name) => new($"start {name}", platform => StartAsync(platform, name), static _ => { }) { IsDone = platform => platform.Instances.Get(name).State == InstanceState.Running };

    private static Step Stop(string name) => new($"stop {name}", platform => platform.Instances.StopAsync(name).Guarded(), state =>
    {
        // What waited for that.
        if (state.Pending.Remove(name, out VolumeUpdate update))
        {
            if (update == VolumeUpdate.Attach)
            {
                state.Instances[name]["/extra"] = state.Volumes["extra"];
            }
            else
            {
                state.Instances[name].Remove("/extra");
            }
        }
    })
    {
        IsDone = platform => platform.Instances.Get(name).State == InstanceState.Stopped,
    };

    internal static async Task StartAsync(DurablePlatform platform, string name)
    {
        await platform.Instances.StartAsync(name).Guarded();
        await platform.Instances.WaitAsync(name, InstanceState.Running).Guarded();
    }

    private static Task<Instance> CreateAsync(DurablePlatform platform, string name, string image, params InstanceVolume[] volumes) =>
        CreateAsync(platform, DurablePlatform.Request(image) with { Name = name, Volumes = volumes });

    private static Task<Instance> CreateAsync(DurablePlatform platform, CreateInstanceRequest request) =>
        platform.Instances.CreateAsync(request with { WaitTimeout = Timeout.InfiniteTimeSpan }).Guarded();

    private static VolumeUpdate? PendingOf(DurablePlatform platform, string volume) => platform.Platform.Volumes.Get(volume).AttachedTo is [var attachment, ..] ? attachment.Pending : null;

    private static InstanceVolume Existing(string name) => new() { Volume = name, At = $"/{name}" };

    private static InstanceVolume Owned => new() { SizeMb = SizeMb, Filesystem = VolumeFilesystem.None, At = "/own" };

    private static Dictionary<string, SectorModel> Copy(Dictionary<string, SectorModel> volumes) => volumes.ToDictionary(static entry => entry.Key, static entry => entry.Value.Clone(), StringComparer.Ordinal);

    /// <summary>One thing to do, and what is there when it is done.</summary>
    internal sealed record Step(string Name, Func<DurablePlatform, Task> Act, Action<State> Effect)
    {
        /// <summary>Tells whether it is done, when that cannot be seen by what there is.</summary>
        internal Func<DurablePlatform, bool>? IsDone { get; init; }

        /// <summary>Of a write: whose guest does it, and where.</summary>
        internal string? Instance { get; init; }

        internal string? At { get; init; }
    }

    /// <summary>Who has which volumes, by where they are mounted.</summary>
    internal sealed class State
    {
        internal Dictionary<string, SectorModel> Volumes { get; private init; } = new(StringComparer.Ordinal);

        internal Dictionary<string, Dictionary<string, SectorModel>> Instances { get; private init; } = new(StringComparer.Ordinal);

        internal Dictionary<string, Dictionary<string, SectorModel>> Checkpoints { get; private init; } = new(StringComparer.Ordinal);

        internal Dictionary<string, Dictionary<string, SectorModel>> Templates { get; private init; } = new(StringComparer.Ordinal);

        internal Dictionary<string, VolumeUpdate> Pending { get; private init; } = new(StringComparer.Ordinal);

        /// <summary>How many volume templates checkpoints and templates have.</summary>
        internal int Kept => Checkpoints.Values.Sum(static volumes => volumes.Count) + Templates.Values.Sum(static volumes => volumes.Count);

        internal State After(Step step)
        {
            // The sectors are the same, whoever is asked for them.
            State next = new()
            {
                Volumes = new(Volumes, StringComparer.Ordinal),
                Instances = Share(Instances),
                Checkpoints = Share(Checkpoints),
                Templates = Share(Templates),
                Pending = new(Pending, StringComparer.Ordinal),
            };
            step.Effect(next);
            return next;

            static Dictionary<string, Dictionary<string, SectorModel>> Share(Dictionary<string, Dictionary<string, SectorModel>> all) =>
                all.ToDictionary(static entry => entry.Key, static entry => new Dictionary<string, SectorModel>(entry.Value, StringComparer.Ordinal), StringComparer.Ordinal);
        }

        internal static string Text(
            IEnumerable<(string Name, IEnumerable<string> At)> instances,
            IEnumerable<(string Name, IEnumerable<string> At)> checkpoints,
            IEnumerable<(string Name, IEnumerable<string> At)> templates,
            IEnumerable<string> volumes,
            int owned)
        {
            return $"instances {List(instances)}\ncheckpoints {List(checkpoints)}\ntemplates {List(templates)}\nvolumes {string.Join(' ', volumes.Order(StringComparer.Ordinal))}\nowned {owned}";

            static string List(IEnumerable<(string Name, IEnumerable<string> At)> all) => string.Join(
                ' ',
                all.OrderBy(static each => each.Name, StringComparer.Ordinal).Select(static each => $"{each.Name}[{string.Join(',', each.At.Order(StringComparer.Ordinal))}]"));
        }

        public override string ToString() => Text(
            Instances.Select(static entry => (entry.Key, entry.Value.Keys.AsEnumerable())),
            Checkpoints.Select(static entry => (entry.Key, entry.Value.Keys.AsEnumerable())),
            Templates.Select(static entry => (entry.Key, entry.Value.Keys.AsEnumerable())),
            Volumes.Keys,
            Instances.Values.Sum(volumes => volumes.Values.Count(volume => !Volumes.ContainsValue(volume))));
    }
}
