namespace Unikraft.Platform.Contracts.Modeling;

/// <summary>What a platform should do, without one: a few dictionaries and a clock. Everything in it happens at once and one after the other.</summary>
/// <param name="quota">How many instances, checkpoints and templates there may be.</param>
/// <param name="images">The name in the tests of an image.</param>
public sealed class PlatformModel(int quota, Func<GuestImage, string> images)
{
    private static readonly TimeSpan Healthy = TimeSpan.FromSeconds(10);
    private static readonly int[] BackoffSeconds = [0, 5, 10, 20, 40, 300];

    /// <summary>The time since the beginning.</summary>
    public TimeSpan Now { get; private set; }

    /// <summary>The instances by name.</summary>
    public SortedDictionary<string, ModelInstance> Instances { get; } = new(StringComparer.Ordinal);

    /// <summary>The checkpoints by name.</summary>
    public SortedDictionary<string, ModelCheckpoint> Checkpoints { get; } = new(StringComparer.Ordinal);

    /// <summary>The templates by name.</summary>
    public SortedDictionary<string, ModelTemplate> Templates { get; } = new(StringComparer.Ordinal);

    /// <summary>The volumes that belong to nobody, by name.</summary>
    public SortedDictionary<string, ModelVolume> Volumes { get; } = new(StringComparer.Ordinal);

    /// <summary>How often every instance that there ever was has reached running, by name.</summary>
    public SortedDictionary<string, int> StartsOf { get; } = new(StringComparer.Ordinal);

    /// <summary>What instances have come into.</summary>
    public IList<ModelEvent> Events { get; } = [];

    private int Allocated => Instances.Count + Checkpoints.Count + Templates.Count;

    /// <summary>Whether so many more resources may be made.</summary>
    public bool HasRoom(int count) => Allocated + count <= quota;

    /// <summary>An instance was created.</summary>
    public void Add(string name, ModelInstance instance, bool start)
    {
        Instances.Add(name, instance);
        StartsOf.Add(name, 0);
        instance.UnusedSince = Now;
        if (start)
        {
            Run(name, instance);
        }
    }

    /// <summary>What a branch, checkpoint or template is made of.</summary>
    public static ModelInstance CloneOf(ModelInstance source) => new()
    {
        Boot = source.Boot,
        Snapshot = SnapshotOf(source),
        History = source.History,
    };

    /// <summary>A branch, load or clone, with volumes of its own.</summary>
    /// <param name="contents">What it is made of.</param>
    /// <param name="rom">A ROM that it has besides.</param>
    public static ModelInstance Made(ModelInstance contents, string? rom = null)
    {
        ModelInstance made = new()
        {
            Boot = rom is null ? contents.Boot : contents.Boot with { Roms = contents.Boot.Roms.Add(rom) },
            Snapshot = contents.Snapshot,
            History = contents.History,
        };
        foreach (ModelMount mount in contents.Snapshot?.Mounts ?? [])
        {
            made.Mounts.Add(mount.Copy());
        }

        return made;
    }

    /// <summary>Whether an instance can be branched, checkpointed or converted.</summary>
    public static ModelError CanClone(ModelInstance instance) =>
        instance.State is InstanceState.Draining ? ModelError.WrongState : ModelError.None;

    /// <summary>A checkpoint is taken.</summary>
    public void Checkpoint(string name, ModelInstance source, TimeSpan? autokill)
    {
        ModelInstance clone = CloneOf(source);
        Keep(clone.Snapshot);
        Checkpoints.Add(name, new ModelCheckpoint(clone) { UnusedSince = Now, Autokill = autokill });
        source.History = [name, .. source.History];
    }

    /// <summary>A checkpoint or template is loaded.</summary>
    public void Load(ModelStored stored)
    {
        stored.Loads++;
        stored.UnusedSince = Now;
    }

    /// <summary>An instance becomes a template.</summary>
    public void Convert(string name)
    {
        ModelInstance instance = Instances[name];
        ModelInstance clone = CloneOf(instance);
        Keep(clone.Snapshot);
        Templates.Add(name, new ModelTemplate(clone)
        {
            Tags = instance.Tags,
            IsLocked = instance.IsLocked,
            Autokill = instance.Autokill,
            UnusedSince = Now,
        });

        // Volumes that nobody else has become those of the template.
        foreach (ModelMount mount in instance.Mounts.Where(mount => mount.IsThere && mount.Volume.Name is not null && IsOnlyIn(mount.Volume, instance)))
        {
            Volumes.Remove(mount.Volume.Name!);
        }

        Remove(name);
    }

    /// <summary>What somebody may continue from is kept.</summary>
    public static void Keep(ModelSnapshot? snapshot)
    {
        if (snapshot is not null)
        {
            snapshot.IsKept = true;
        }
    }

    /// <summary>What instances have a volume.</summary>
    public IEnumerable<(string Name, ModelInstance Instance, ModelMount Mount)> MountsOf(ModelVolume volume) =>
        from entry in Instances
        from mount in entry.Value.Mounts
        where mount.Volume == volume
        select (entry.Key, entry.Value, mount);

    /// <summary>The state of a volume.</summary>
    public VolumeState StateOf(ModelVolume volume) => volume.IsTemplate ? VolumeState.Template
        : MountsOf(volume).Any(static use => use.Mount.IsThere && use.Instance.State != InstanceState.Stopped) ? VolumeState.Mounted
        : MountsOf(volume).Any(static use => use.Mount.IsThere) ? VolumeState.Idle
        : VolumeState.Available;

    /// <summary>Whether an instance may have a volume besides those that have it.</summary>
    public ModelError CanAttach(ModelVolume volume, bool isReadOnly) => volume.IsTemplate ? ModelError.Invalid
        : MountsOf(volume).Any(use => !use.Mount.IsReadOnly || !isReadOnly) ? ModelError.Busy
        : ModelError.None;

    /// <summary>Whether an instance uses a volume, or continues with it.</summary>
    public bool IsUsed(ModelVolume volume) => MountsOf(volume).Any(static use => use.Mount.IsThere && !use.Instance.IsFree);

    /// <summary>A volume is attached to an instance.</summary>
    public static void Attach(ModelInstance instance, ModelVolume volume, string at, bool isReadOnly) =>
        instance.Mounts.Add(new ModelMount(volume, at, isReadOnly) { Pending = instance.IsFree ? null : VolumeUpdate.Attach });

    /// <summary>A volume is detached from an instance.</summary>
    public static void Detach(ModelInstance instance, ModelMount mount)
    {
        if (instance.IsFree || !mount.IsThere)
        {
            instance.Mounts.Remove(mount);
        }
        else
        {
            mount.Pending = VolumeUpdate.Detach;
        }
    }

    /// <summary>A start of an instance was begun, whether it succeeds or not: what waits for it is done.</summary>
    public static void ApplyUpdates(ModelInstance instance)
    {
        foreach (ModelMount mount in instance.Mounts.Where(static mount => mount.Pending is not null).ToArray())
        {
            if (!mount.IsThere)
            {
                mount.Pending = null;
            }
            else if (instance.Snapshot?.Memory is null)
            {
                instance.Mounts.Remove(mount);
            }
        }
    }

    /// <summary>A start of an instance was in vain: what it was before is forgotten all the same.</summary>
    /// <param name="instance">The instance.</param>
    public static void FailToStart(ModelInstance instance)
    {
        instance.Passed.Clear();
        instance.Passed.Add(instance.State);
    }

    /// <summary>The host ends, and another one goes on with what was kept.</summary>
    public void RestartHost()
    {
        foreach ((string name, ModelInstance instance) in Instances.ToArray())
        {
            instance.Passed.Clear();
            instance.Passed.Add(instance.State);
            if (instance.IsUp)
            {
                instance.Passed.Clear();
                EndRestarts(instance);

                // Memory does not go with volumes that may have been written to since.
                instance.Snapshot = instance.Mounts.All(static mount => mount.IsReadOnly) ? instance.Resumed : null;
                End(name, instance, instance.State == InstanceState.Draining ? "FUP--" : "F-P--", InstanceState.Stopped);
            }
        }
    }

    /// <summary>What an instance boots with when the changes that wait are in effect.</summary>
    /// <param name="instance">The instance.</param>
    public ModelBoot BootAfterUpdates(ModelInstance instance) =>
        instance.Updates.Aggregate(instance.Boot, (boot, update) => boot.After(update, images));

    /// <summary>Somebody changes an instance.</summary>
    /// <param name="instance">The instance.</param>
    /// <param name="operations">The changes, all of which are allowed.</param>
    public void Patch(ModelInstance instance, IReadOnlyList<PatchOperation> operations)
    {
        ScaleToZero? before = instance.ScalesToZero;
        foreach (PatchOperation operation in operations)
        {
            switch (operation)
            {
                case PatchOperation.SetScaleToZero set:
                    instance.ScalesToZero = set.ScaleToZero;
                    break;
                case PatchOperation.AddTags or PatchOperation.DelTags or PatchOperation.SetTags or PatchOperation.SetDeleteLock or PatchOperation.SetAutokill:
                    instance.Apply(operation);
                    break;
                default:
                    instance.Updates = [.. instance.Updates, operation];
                    break;
            }
        }

        Update(instance);
        if (instance.ScalesToZero != before && instance is { State: InstanceState.Running, Connections: 0 })
        {
            instance.IdleSince = Now;
        }
    }

    /// <summary>Somebody starts an instance.</summary>
    public ModelError Start(string name)
    {
        ModelInstance instance = Instances[name];
        if (instance.IsUp)
        {
            return ModelError.WrongState;
        }

        instance.RestartAttempt = null;
        instance.RestartDue = null;
        Run(name, instance);
        return ModelError.None;
    }

    /// <summary>Somebody stops an instance.</summary>
    public void Stop(string name, bool force)
    {
        ModelInstance instance = Instances[name];
        EndRestarts(instance);
        if (instance.IsUp)
        {
            End(name, instance, force ? "FUP--" : "-UPAK", InstanceState.Stopped);
        }
        else
        {
            Enter(name, instance, InstanceState.Stopped);
            instance.UnusedSince ??= Now;
            if (instance.IsFree)
            {
                ApplyUpdates(instance);
            }
        }
    }

    /// <summary>Somebody stops an instance when its connections have ended.</summary>
    public void Drain(string name, TimeSpan timeout)
    {
        ModelInstance instance = Instances[name];
        if (instance.State != InstanceState.Draining && (instance.State != InstanceState.Running || instance.Connections == 0))
        {
            if (instance.State == InstanceState.Running)
            {
                // For no time, but it was.
                instance.Passed.Add(InstanceState.Draining);
            }

            Stop(name, force: false);
            return;
        }

        EndRestarts(instance);
        Enter(name, instance, InstanceState.Draining);
        instance.DrainDue = Min(instance.DrainDue, Now + timeout);
    }

    /// <summary>Somebody suspends an instance.</summary>
    public ModelError Suspend(string name)
    {
        ModelInstance instance = Instances[name];
        if (instance.DeleteOnStop)
        {
            return ModelError.Invalid;
        }

        if (instance.State == InstanceState.Standby)
        {
            return ModelError.None;
        }

        if (instance.State != InstanceState.Running)
        {
            return ModelError.WrongState;
        }

        EndRestarts(instance);
        Suspend(name, instance, "-UP--");
        return ModelError.None;
    }

    /// <summary>Somebody connects to an instance.</summary>
    public ModelError Connect(string name)
    {
        ModelInstance instance = Instances[name];
        if (instance.State == InstanceState.Standby)
        {
            Run(name, instance);
        }

        if (instance.State != InstanceState.Running)
        {
            return ModelError.WrongState;
        }

        instance.Connections++;
        instance.IdleSince = null;
        return ModelError.None;
    }

    /// <summary>A connection ends.</summary>
    public void Disconnect(string name)
    {
        ModelInstance instance = Instances[name];
        if (--instance.Connections > 0)
        {
            return;
        }

        if (instance.State == InstanceState.Draining)
        {
            Stop(name, force: false);
        }
        else
        {
            instance.IdleSince = Now;
        }
    }

    /// <summary>The app of an instance exits.</summary>
    public void Exit(string name)
    {
        ModelInstance instance = Instances[name];
        EndFromWithin(name, instance, isCrash: false);
    }

    /// <summary>What becomes of things by themselves up to now happens, and the next time at which something does is told.</summary>
    public TimeSpan? Settle()
    {
        foreach (ModelResource resource in Instances.Values.Concat<ModelResource>(Checkpoints.Values).Concat(Templates.Values).ToArray())
        {
            if (resource.AutokillDue <= Now)
            {
                Remove(resource);
            }
        }

        foreach ((string name, ModelInstance instance) in Instances.ToArray())
        {
            if (instance.DrainDue <= Now)
            {
                Stop(name, force: false);
            }
            else if (instance.IdleDue <= Now)
            {
                ScaleToZero(name, instance);
            }
            else if (instance.RestartDue <= Now)
            {
                instance.RestartDue = null;
                instance.Restarts++;
                Run(name, instance);
            }
        }

        TimeSpan? next = null;
        foreach (ModelInstance instance in Instances.Values)
        {
            next = Min(next, Min(Min(instance.DrainDue, instance.IdleDue), Min(instance.RestartDue, instance.AutokillDue)));
        }

        foreach (ModelResource resource in Checkpoints.Values.Concat<ModelResource>(Templates.Values))
        {
            next = Min(next, resource.AutokillDue);
        }

        return next;
    }

    /// <summary>Time passes, without anything happening in it.</summary>
    public void Advance(TimeSpan span) => Now += span;

    /// <summary>The restart sequence of an instance, as it is told.</summary>
    public int? RestartAttemptOf(ModelInstance instance) =>
        instance.IsUp && Now - instance.RunningSince >= Healthy ? null : instance.RestartAttempt;

    /// <summary>An instance is gone.</summary>
    /// <param name="name">Its name.</param>
    public void Remove(string name)
    {
        Instances.Remove(name);
        Events.Add(new ModelEvent(name, State: null, Now));
    }

    private static ModelSnapshot? SnapshotOf(ModelInstance source)
    {
        ModelMount[] mounts = [.. source.Mounts.Where(static mount => mount.IsThere)];
        int roms = source.Boot.Roms.Count;
        return source.IsUp ? new ModelSnapshot(source.Live, mounts, roms)
            // It may have been given more than what it continues from has.
            : mounts.Length > (source.Snapshot?.Mounts.Count ?? 0) || roms > (source.Snapshot?.Roms ?? 0) ? new ModelSnapshot(source.Snapshot?.Memory, mounts, roms)
            : source.Snapshot;
    }

    private bool IsOnlyIn(ModelVolume volume, ModelInstance instance) => MountsOf(volume).All(use => use.Instance == instance && use.Mount.IsThere);

    private void Enter(string name, ModelInstance instance, InstanceState state)
    {
        instance.State = state;
        instance.Passed.Add(state);
        Events.Add(new ModelEvent(name, state, Now));
    }

    private static TimeSpan? Min(TimeSpan? one, TimeSpan? other) => one is null || other < one ? other : one;

    private static void EndRestarts(ModelInstance instance)
    {
        instance.RestartAttempt = null;
        instance.RestartDue = null;
    }

    // What waits for a boot of the image is in effect when the next start is one.
    private void Update(ModelInstance instance)
    {
        if (!instance.IsUp && instance.Snapshot is null)
        {
            instance.Boot = BootAfterUpdates(instance);
            instance.Updates = [];
        }
    }

    private void Remove(ModelResource resource)
    {
        foreach (string name in Instances.Where(entry => entry.Value == resource).Select(entry => entry.Key).ToArray())
        {
            Remove(name);
        }

        foreach (string name in Checkpoints.Where(entry => entry.Value == resource).Select(entry => entry.Key).ToArray())
        {
            Checkpoints.Remove(name);
        }

        foreach (string name in Templates.Where(entry => entry.Value == resource).Select(entry => entry.Key).ToArray())
        {
            Templates.Remove(name);
        }
    }

    private void Run(string name, ModelInstance instance)
    {
        instance.Passed.Clear();
        Enter(name, instance, InstanceState.Running);
        instance.Starts++;
        StartsOf[name]++;
        instance.UnusedSince = null;
        instance.RunningSince = Now;
        instance.IdleSince = Now;
        ApplyUpdates(instance);
        instance.Live = instance.Snapshot?.Memory ?? ModelMemory.Fresh;
        instance.Resumed = instance.Snapshot is { IsKept: true } ? instance.Snapshot : null;
        instance.Snapshot = null;
        if (instance.Crashes)
        {
            EndFromWithin(name, instance, isCrash: true);
        }
    }

    private void EndFromWithin(string name, ModelInstance instance, bool isCrash)
    {
        bool wanted = instance.State == InstanceState.Running
            && (instance.Policy == RestartPolicy.Always || (isCrash && instance.Policy == RestartPolicy.OnFailure));
        string asked = instance.State == InstanceState.Draining ? "-UP" : "---";
        int attempt = Now - instance.RunningSince >= Healthy ? 1 : (instance.RestartAttempt ?? 0) + 1;
        EndRestarts(instance);
        End(name, instance, asked + (isCrash ? "-K" : "AK"), InstanceState.Stopped);
        if (!wanted)
        {
            return;
        }

        instance.RestartAttempt = attempt;
        instance.UnusedSince = null;
        int delay = BackoffSeconds[Math.Min(attempt, BackoffSeconds.Length) - 1];
        if (delay > 0)
        {
            instance.RestartDue = Now + TimeSpan.FromSeconds(delay);
            return;
        }

        instance.Restarts++;
        Run(name, instance);
    }

    private void Suspend(string name, ModelInstance instance, string mask)
    {
        instance.Snapshot = SnapshotOf(instance);
        Keep(instance.Snapshot);
        End(name, instance, mask, instance.ScalesToZero is null ? InstanceState.Stopped : InstanceState.Standby);
    }

    private void ScaleToZero(string name, ModelInstance instance)
    {
        EndRestarts(instance);
        if (instance.ScalesToZero is { Stateful: true })
        {
            Suspend(name, instance, "--P--");
        }
        else
        {
            End(name, instance, "--PAK", InstanceState.Standby);
        }
    }

    private void End(string name, ModelInstance instance, string mask, InstanceState state)
    {
        Enter(name, instance, state);
        instance.StopMask = mask;
        instance.Live = ModelMemory.Fresh;
        instance.Resumed = null;
        instance.Connections = 0;
        instance.DrainDue = null;
        Update(instance);
        if (instance.IsFree)
        {
            ApplyUpdates(instance);
        }

        instance.UnusedSince = state == InstanceState.Stopped ? Now : null;
        if (instance.DeleteOnStop && !instance.IsLocked)
        {
            Remove(name);
        }
    }
}
