using Unikraft.Platform.Contracts;
using Unikraft.Platform.Volumes;
using Unikraft.Platform.Storage.Tests.Testing;

namespace Unikraft.Platform.Storage.Tests.Recovery;

/// <summary>A script of all that volumes do to the disk, and what must be there of it afterwards.</summary>
internal sealed class VolumeModel
{
    private readonly Dictionary<string, (int SizeMb, bool IsTemplate, string? Value)> _acknowledged = new(StringComparer.Ordinal);
    private readonly List<string> _uncertain = [];
    private int _run;

    /// <summary>Does everything once. What fails with an error of the host is not counted on.</summary>
    /// <returns>How much failed.</returns>
    internal async Task<int> RunAsync(DurablePlatform platform)
    {
        int failed = 0;
        string suffix = $"{++_run}";
        foreach ((string name, Func<Task> operation) in Script(platform, suffix))
        {
            try
            {
                await operation();
            }
            catch (PlatformException error) when (error is StorageException or BlockDeviceException or DiskImageException or DataDamageException or ResourceNotFoundException or VolumeBusyException
                or InvalidRequestException)
            {
                // Some of what follows needs what has failed.
                failed++;
                _uncertain.Add(name);
            }
        }

        return failed;
    }

    /// <summary>Does everything once, until the power goes out.</summary>
    internal async Task<bool> RunUntilPowerCutAsync(DurablePlatform platform)
    {
        foreach ((string name, Func<Task> operation) in Script(platform, "1"))
        {
            try
            {
                Task done = operation();
                await Task.WhenAny(done, platform.Disk.Off);
                if (!platform.Disk.Off.IsCompleted)
                {
                    await done;
                    continue;
                }
            }
            catch (Exception error) when (error is PowerCutException or PlatformException or AggregateException)
            {
                // What was under way may be there or not.
            }

            _uncertain.Add(name);
            return true;
        }

        return platform.Disk.Off.IsCompleted;
    }

    /// <summary>Checks that all is there that was acknowledged, and can be used.</summary>
    internal async Task CheckAsync(DurablePlatform platform)
    {
        IVolumeStore volumes = platform.Platform.Volumes;
        Dictionary<string, Volume> found = volumes.List().Concat(volumes.ListTemplates()).Where(volume => volume is { Name: not null, Persistent: true })
            .ToDictionary(volume => volume.Name!, StringComparer.Ordinal);
        foreach ((string name, (int sizeMb, bool isTemplate, string? value)) in _acknowledged)
        {
            if (_uncertain.Contains(name))
            {
                continue;
            }

            Assert.True(found.TryGetValue(name, out Volume? volume), $"{name} is lost; there are {string.Join(' ', found.Keys)}");
            Assert.True(
                (sizeMb, isTemplate) == (volume!.SizeMb, volume.State == VolumeState.Template) && volume.State != VolumeState.Error,
                $"{name}: {sizeMb} {isTemplate}, {volume}; uncertain: {string.Join(' ', _uncertain)}");
            if (value is not null && !isTemplate && volume.AttachedTo.Count == 0)
            {
                Instance reader = await platform.Instances.CreateAsync(DurablePlatform.Request("kv") with
                {
                    Volumes = [new InstanceVolume { Volume = name, At = "/data" }],
                    WaitTimeout = Timeout.InfiniteTimeSpan,
                }).Guarded();
                Assert.Equal($"value={value}", await platform.AskAsync(reader.Uuid, "get who"));
                Assert.StartsWith("check ok", await platform.AskAsync(reader.Uuid, "check"), StringComparison.Ordinal);
                await platform.Instances.DeleteAsync(reader.Uuid).Guarded();
            }
        }

        Assert.All(found.Keys, name => Assert.True(_acknowledged.ContainsKey(name) || _uncertain.Contains(name), $"{name} was deleted, and is there"));
    }

    // A resizing that failed may have been done, and nobody knows the size of what comes of it.
    private void Derive(string from, string to)
    {
        _acknowledged[to] = _acknowledged[from];
        if (_uncertain.Contains(from))
        {
            _uncertain.Add(to);
        }
    }

    private IEnumerable<(string Name, Func<Task> Operation)> Script(DurablePlatform platform, string run)
    {
        IVolumeStore volumes = platform.Platform.Volumes;
        string data = $"data{run}", clone = $"clone{run}", template = $"template{run}", made = $"made{run}", gone = $"gone{run}", guest = $"guest{run}";
        yield return (data, async () =>
        {
            await volumes.CreateAsync(new CreateVolumeRequest { Name = data, SizeMb = 1, Filesystem = VolumeFilesystem.None }).Guarded();
            _acknowledged[data] = (1, false, null);
        });
        yield return (data, async () =>
        {
            await volumes.ResizeAsync(data, 2).Guarded();
            _acknowledged[data] = (2, false, null);
        });
        yield return (guest, async () => await platform.Instances.CreateAsync(DurablePlatform.Request("kv") with
        {
            Name = guest,
            Volumes = [new InstanceVolume { Volume = data, At = "/data" }],
            WaitTimeout = Timeout.InfiniteTimeSpan,
        }).Guarded());
        yield return (data, async () =>
        {
            // The guest says that it could not write when it could not.
            if (await platform.AskAsync(guest, "put who first") is "ok 1")
            {
                _acknowledged[data] = _acknowledged[data] with { Value = "first" };
            }
            else
            {
                throw new StorageException(data, "The guest could not write.");
            }
        });
        yield return (clone, async () =>
        {
            await volumes.CloneAsync(data, new CloneVolumeRequest { Name = clone }).Guarded();
            Derive(data, clone);
        });
        yield return (guest, async () => await platform.Instances.DeleteAsync(guest).Guarded());
        yield return (gone, async () =>
        {
            await volumes.CreateAsync(new CreateVolumeRequest { Name = gone, SizeMb = 1, Filesystem = VolumeFilesystem.None }).Guarded();
            _acknowledged[gone] = (1, false, null);
        });
        yield return (gone, async () =>
        {
            await volumes.DeleteAsync(gone).Guarded();
            _acknowledged.Remove(gone);
        });
        yield return (template, async () =>
        {
            await volumes.CloneAsync(clone, new CloneVolumeRequest { Name = template }).Guarded();
            Derive(clone, template);
        });
        yield return (template, async () =>
        {
            await volumes.ConvertAsync(template).Guarded();
            _acknowledged[template] = _acknowledged[template] with { IsTemplate = true };
        });
        yield return (made, async () =>
        {
            await volumes.CreateAsync(new CreateVolumeRequest { Name = made, Template = template }).Guarded();
            Derive(template, made);
            _acknowledged[made] = _acknowledged[made] with { IsTemplate = false };
        });
        yield return (template, async () => await platform.Platform.WhenVolumesIdleAsync().Guarded());
    }
}
