using System.Globalization;

namespace Unikraft.Platform.Contracts.Modeling;

/// <content>Volumes, and instances that keep records on them.</content>
public sealed partial class ModelRun
{
    private const int VolumeMb = 8;

    private async Task CreateStoreAsync(ModelCommand command)
    {
        Dice dice = new((ulong)command.Variant);
        bool start = dice.Next(4) > 0;
        bool deleteOnStop = dice.Next(6) == 0;
        ScaleToZero? scale = !deleteOnStop && dice.Next(3) == 0 ? new ScaleToZero(Stateful: dice.Next(2) == 0, Seconds(3 + dice.Next(30))) : null;
        ModelVolume? existing = dice.Next(3) > 0 ? Pick(_model.Volumes, command.Target)?.Value : null;
        bool hasRom = dice.Next(4) == 0;
        string name = NewName();
        Say($"create {name} on {existing?.Name ?? "a volume of its own"} {(start ? "started" : "stopped")} rom={hasRom} delete-on-stop={deleteOnStop} {scale}");
        CreateInstanceRequest request = Request(ModelBoot.Store) with
        {
            Name = name,
            Autostart = start,
            ScaleToZero = scale,
            Features = deleteOnStop ? InstanceFeatures.DeleteOnStop : InstanceFeatures.None,
            WaitTimeout = start ? Timeout.InfiniteTimeSpan : null,
            Volumes =
            [
                existing is null
                    ? new InstanceVolume { SizeMb = VolumeMb, Filesystem = VolumeFilesystem.None, At = ModelMount.OfStore }
                    : new InstanceVolume { Volume = existing.Name!, At = ModelMount.OfStore },
            ],
            Roms = hasRom ? [ModelBoot.Rom("rom")] : null,
        };
        ModelError expected = !_model.HasRoom(1) ? ModelError.Quota
            : existing is null ? ModelError.None
            : _model.CanAttach(existing, isReadOnly: false);
        if (await InterruptedAsync(command, expected, interruptible: start, token => Instances.CreateAsync(request, token)) == ModelError.None)
        {
            ModelInstance model = new()
            {
                Boot = hasRom ? ModelBoot.OfStore with { Roms = ModelBoot.OfStore.Roms.Add("rom") } : ModelBoot.OfStore,
                DeleteOnStop = deleteOnStop,
                ScalesToZero = scale,
            };
            model.Mounts.Add(new ModelMount(existing ?? new ModelVolume { SizeMb = VolumeMb }, ModelMount.OfStore, isReadOnly: false));
            _model.Add(name, model, start);
        }
    }

    private async Task PutAsync(ModelCommand command)
    {
        if (PickStore(command) is not (string name, ModelVolume volume))
        {
            return;
        }

        string value = string.Create(CultureInfo.InvariantCulture, $"value-{command.Variant % 1000}");
        Say($"put {value} in {name}");
        await using ConsoleSession console = Attach(name);
        await console.WriteLineAsync($"put key {value}");
        Assert.Equal(string.Create(CultureInfo.InvariantCulture, $"ok {volume.Records + 1}"), await ReadAnswerAsync(console));
        volume.Records++;
        volume.Value = value;
    }

    private async Task GetAsync(ModelCommand command)
    {
        if (PickStore(command) is not (string name, ModelVolume volume))
        {
            return;
        }

        Say($"get from {name}");
        await using ConsoleSession console = Attach(name);
        await console.WriteLineAsync("get key");
        Assert.Equal(volume.Value is { } value ? $"value={value}" : "none", await ReadAnswerAsync(console));
        await console.WriteLineAsync("check");
        Assert.StartsWith("check ok", await ReadAnswerAsync(console), StringComparison.Ordinal);
    }

    private (string Name, ModelVolume Volume)? PickStore(ModelCommand command) =>
        Pick(_model.Instances, command.Target, static model => model is { IsUp: true, Boot.Stores: true }) is (string name, ModelInstance model)
            ? (name, model.Mounts.First(static mount => string.Equals(mount.At, ModelMount.OfStore, StringComparison.Ordinal)).Volume)
            : null;

    private static async Task<string?> ReadAnswerAsync(ConsoleSession console)
    {
        while (await console.ReadLineAsync() is { } line)
        {
            if (!line.StartsWith("kv ready", StringComparison.Ordinal))
            {
                return line;
            }
        }

        return null;
    }

    private async Task CreateVolumeAsync(ModelCommand command)
    {
        Dice dice = new((ulong)command.Variant);
        ModelVolume? template = dice.Next(3) == 0 ? Pick(_model.Volumes, command.Target)?.Value : null;
        int size = VolumeMb + dice.Next(3);
        string[] tags = dice.Next(4) == 0 ? [$"tag-{dice.Next(4)}"] : [];
        bool isLocked = dice.Next(8) == 0;
        string name = NewName();
        Say($"create volume {name} {(template is null ? $"of {size} MiB" : $"from {template.Name}")} {string.Join(',', tags)} lock={isLocked}");
        ModelError error = await TryAsync(() => Volumes.CreateAsync(new CreateVolumeRequest
        {
            Name = name,
            SizeMb = template is null ? size : null,
            Template = template is null ? (NameOrUuid?)null : template.Name!,
            Filesystem = template is null ? VolumeFilesystem.None : null,
            Tags = tags,
            DeleteLock = isLocked,
        }));
        Assert.Equal(template is { IsTemplate: false } ? ModelError.Invalid : ModelError.None, error);
        if (error == ModelError.None)
        {
            ModelVolume volume = template?.Copy(name) ?? new ModelVolume { Name = name, SizeMb = size };
            (volume.Tags, volume.IsLocked) = (tags, isLocked);
            _model.Volumes.Add(name, volume);
        }
    }

    private async Task CloneVolumeAsync(ModelCommand command)
    {
        if (Pick(_model.Volumes, command.Target) is not (string source, ModelVolume model))
        {
            return;
        }

        string name = NewName();
        Say($"clone volume {source} to {name}");
        ModelError error = await TryAsync(() => Volumes.CloneAsync(source, new CloneVolumeRequest { Name = name }));
        Assert.Equal(model.IsTemplate ? ModelError.Invalid : ModelError.None, error);
        if (error == ModelError.None)
        {
            _model.Volumes.Add(name, model.Copy(name));
        }
    }

    private async Task AttachAsync(ModelCommand command)
    {
        if (Pick(_model.Volumes, command.Variant) is not (string volume, ModelVolume model)
            || Pick(_model.Instances, command.Target) is not (string name, ModelInstance instance))
        {
            return;
        }

        string at = string.Create(CultureInfo.InvariantCulture, $"/v{command.Variant % 5}");
        bool isReadOnly = command.Variant % 3 == 0;
        Say($"attach {volume} to {name} at {at}{(isReadOnly ? " to read" : "")}");
        ModelError expected = _model.CanAttach(model, isReadOnly);
        if (expected == ModelError.None
            && (instance.Mounts.Count == 4 || instance.Mounts.Any(mount => string.Equals(mount.At, at, StringComparison.Ordinal))))
        {
            expected = ModelError.Invalid;
        }

        ModelError error = await TryAsync(() => Volumes.AttachAsync(volume, new AttachVolumeRequest { Instance = name, At = at, ReadOnly = isReadOnly }));
        Assert.Equal(expected, error);
        if (error == ModelError.None)
        {
            PlatformModel.Attach(instance, model, at, isReadOnly);
        }
    }

    private async Task DetachAsync(ModelCommand command)
    {
        // Without the one that it has its records on a store ends.
        if (Pick(
                _model.Instances,
                command.Target,
                static model => model.Mounts.Any(static mount => mount.Volume.Name is not null && !string.Equals(mount.At, ModelMount.OfStore, StringComparison.Ordinal)))
            is not (string name, ModelInstance instance))
        {
            return;
        }

        ModelMount mount = instance.Mounts.First(static mount => mount.Volume.Name is not null && !string.Equals(mount.At, ModelMount.OfStore, StringComparison.Ordinal));
        Say($"detach {mount.Volume.Name} from {name}");
        await Volumes.DetachAsync(mount.Volume.Name!, name).Guarded();
        foreach (ModelMount same in instance.Mounts.Where(other => other.Volume == mount.Volume).ToArray())
        {
            PlatformModel.Detach(instance, same);
        }
    }

    private async Task ResizeAsync(ModelCommand command)
    {
        if (Pick(_model.Volumes, command.Target) is not (string name, ModelVolume model))
        {
            return;
        }

        int size = VolumeMb - 1 + (command.Variant % 6);
        Say($"resize {name} to {size} MiB");
        ModelError error = await TryAsync(() => Volumes.ResizeAsync(name, size));
        Assert.Equal(_model.IsUsed(model) ? ModelError.Busy : model.IsTemplate || size < model.SizeMb ? ModelError.Invalid : ModelError.None, error);
        if (error == ModelError.None)
        {
            model.SizeMb = size;
        }
    }

    private async Task ConvertVolumeAsync(ModelCommand command)
    {
        if (Pick(_model.Volumes, command.Target) is not (string name, ModelVolume model))
        {
            return;
        }

        Say($"convert volume {name}");
        ModelError error = await TryAsync(() => Volumes.ConvertAsync(name));
        Assert.Equal(_model.MountsOf(model).Any() ? ModelError.Busy : ModelError.None, error);
        model.IsTemplate |= error == ModelError.None;
    }

    private async Task DeleteVolumeAsync(ModelCommand command)
    {
        if (Pick(_model.Volumes, command.Target) is not (string name, ModelVolume model))
        {
            return;
        }

        Say($"delete volume {name}");
        ModelError error = await TryAsync(() => Volumes.DeleteAsync(name));
        Assert.Equal(_model.MountsOf(model).Any() ? ModelError.Busy : model.IsLocked ? ModelError.Locked : ModelError.None, error);
        if (error == ModelError.None)
        {
            _model.Volumes.Remove(name);
        }
    }

    private async Task PatchVolumeAsync(ModelCommand command)
    {
        if (Pick(_model.Volumes, command.Target) is not (string name, ModelVolume model))
        {
            return;
        }

        Dice dice = new((ulong)command.Variant);
        PatchOperation[] operations = [.. Enumerable.Range(0, dice.Next(3) + 1).Select(_ => NewOperation(dice))];
        bool isBad = operations.Any(static operation => operation is PatchOperation.SetAutokill);
        Say($"patch volume {name}: {string.Join(", ", operations.Select(static operation => operation.ToString()))}");
        Assert.Equal(isBad ? ModelError.Invalid : ModelError.None, await TryAsync(() => Volumes.PatchAsync(name, operations)));
        foreach (PatchOperation operation in isBad ? [] : operations)
        {
            model.Apply(operation);
        }
    }

    /// <summary>Deletes everything, after which no volume and no part of one may be left.</summary>
    private async Task CheckVolumesAsync()
    {
        if (Volumes.List().Count == 0 && Volumes.ListTemplates().Count == 0)
        {
            return;
        }

        Say("delete everything");
        PatchOperation[] unlock = [new PatchOperation.SetDeleteLock(Enabled: false)];
        foreach (Instance instance in Instances.List())
        {
            await Instances.PatchAsync(instance.Uuid, unlock).Guarded();
            await Instances.DeleteAsync(instance.Uuid).Guarded();
        }

        foreach (Checkpoint checkpoint in Checkpoints.List())
        {
            await Checkpoints.PatchAsync(checkpoint.Uuid, unlock).Guarded();
            await Checkpoints.DeleteAsync(checkpoint.Uuid).Guarded();
        }

        foreach (Template template in Templates.List())
        {
            await Templates.PatchAsync(template.Uuid, unlock).Guarded();
            await Templates.DeleteAsync(template.Uuid).Guarded();
        }

        foreach (string name in _model.Volumes.Keys)
        {
            await Volumes.PatchAsync(name, unlock).Guarded();
            await Volumes.DeleteAsync(name).Guarded();
        }

        await UntilAsync(() => string.Join(", ", Volumes.List().Concat(Volumes.ListTemplates()).Select(static volume => volume.ToString())) is { Length: > 0 } left ? "left: " + left : null);
    }
}
