using System.Globalization;
using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Contracts.Modeling;

/// <content>Whether the platform is where the model is.</content>
public sealed partial class ModelRun
{
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
}
