using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Contracts.Modeling;

/// <content>Deletions, changes and what is refused.</content>
public sealed partial class ModelRun
{
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
}
