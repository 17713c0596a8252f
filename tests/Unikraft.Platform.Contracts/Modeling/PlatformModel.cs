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

    /// <summary>How often every instance that there ever was has reached running, by name.</summary>
    public SortedDictionary<string, int> StartsOf { get; } = new(StringComparer.Ordinal);

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

    /// <summary>A branch, load or clone continues from a memory.</summary>
    public static ModelInstance CloneOf(ModelInstance source) => new()
    {
        Boot = source.Boot,
        Snapshot = source.IsUp ? source.Live : source.Snapshot,
        HasSnapshot = source.IsUp || source.HasSnapshot,
        History = source.History,
    };

    /// <summary>Whether an instance can be branched, checkpointed or converted.</summary>
    public static ModelError CanClone(ModelInstance instance) =>
        instance.State is InstanceState.Draining ? ModelError.WrongState : ModelError.None;

    /// <summary>A checkpoint is taken.</summary>
    public void Checkpoint(string name, ModelInstance source, TimeSpan? autokill)
    {
        ModelInstance clone = CloneOf(source);
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
        Templates.Add(name, new ModelTemplate(CloneOf(instance))
        {
            Tags = instance.Tags,
            IsLocked = instance.IsLocked,
            Autokill = instance.Autokill,
            UnusedSince = Now,
        });
        Instances.Remove(name);
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
            instance.State = InstanceState.Stopped;
            instance.UnusedSince ??= Now;
        }
    }

    /// <summary>Somebody stops an instance when its connections have ended.</summary>
    public void Drain(string name, TimeSpan timeout)
    {
        ModelInstance instance = Instances[name];
        if (instance.State != InstanceState.Draining && (instance.State != InstanceState.Running || instance.Connections == 0))
        {
            Stop(name, force: false);
            return;
        }

        EndRestarts(instance);
        instance.State = InstanceState.Draining;
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

    private static TimeSpan? Min(TimeSpan? one, TimeSpan? other) => one is null || other < one ? other : one;

    private static void EndRestarts(ModelInstance instance)
    {
        instance.RestartAttempt = null;
        instance.RestartDue = null;
    }

    // What waits for a boot of the image is in effect when the next start is one.
    private void Update(ModelInstance instance)
    {
        if (!instance.IsUp && !instance.HasSnapshot)
        {
            instance.Boot = BootAfterUpdates(instance);
            instance.Updates = [];
        }
    }

    private void Remove(ModelResource resource)
    {
        foreach (string name in Instances.Where(entry => entry.Value == resource).Select(entry => entry.Key).ToArray())
        {
            Instances.Remove(name);
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
        instance.State = InstanceState.Running;
        instance.Starts++;
        StartsOf[name]++;
        instance.UnusedSince = null;
        instance.RunningSince = Now;
        instance.IdleSince = Now;
        instance.Live = instance.HasSnapshot ? instance.Snapshot : ModelMemory.Fresh;
        (instance.Snapshot, instance.HasSnapshot) = (ModelMemory.Fresh, false);
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
        (instance.Snapshot, instance.HasSnapshot) = (instance.Live, true);
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
        instance.State = state;
        instance.StopMask = mask;
        instance.Live = ModelMemory.Fresh;
        instance.Connections = 0;
        instance.DrainDue = null;
        Update(instance);
        instance.UnusedSince = state == InstanceState.Stopped ? Now : null;
        if (instance.DeleteOnStop && !instance.IsLocked)
        {
            Instances.Remove(name);
        }
    }
}
