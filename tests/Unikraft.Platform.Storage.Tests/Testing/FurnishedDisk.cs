using Unikraft.Platform.Contracts;

namespace Unikraft.Platform.Storage.Tests.Testing;

/// <summary>A disk with a data directory that has some of everything, and what guests say that are made of it.</summary>
internal static class FurnishedDisk
{
    /// <summary>What guests are made of: first <see cref="OfCounters"/> without volumes.</summary>
    internal static IReadOnlyList<Load> Loads { get; } =
    [
        new("checkpoint a", CheckpointOf("a"), static platform => CountAsync(platform, new CreateInstanceRequest { Checkpoint = "a", WaitTimeout = Timeout.InfiniteTimeSpan })),
        new("checkpoint b", CheckpointOf("b"), static platform => CountAsync(platform, new CreateInstanceRequest { Checkpoint = "b", WaitTimeout = Timeout.InfiniteTimeSpan })),
        new(
            "template base",
            static platform => platform.Templates.Get("base").Uuid,
            static platform => CountAsync(platform, new CreateInstanceRequest { Template = "base", WaitTimeout = Timeout.InfiniteTimeSpan })),
        new("instance clone", InstanceOf("clone"), CountCloneAsync),
        new("instance worker", InstanceOf("worker"), AskWorkerAsync),
        new("checkpoint v", CheckpointOf("v"), static platform => ReadAsync(platform, new CreateInstanceRequest { Checkpoint = "v", WaitTimeout = Timeout.InfiniteTimeSpan })),
        new("volume made", VolumeOf("made"), static platform => ReadAsync(platform, WithVolume("made"))),
        new("volume other", VolumeOf("other"), static platform => ReadAsync(platform, WithVolume("other"))),
        new("volume blank", VolumeOf("blank"), static platform => ReadAsync(platform, WithVolume("blank"))),
    ];

    /// <summary>So many of the loads have no volumes.</summary>
    internal const int OfCounters = 4;

    internal static async Task<SimulatedDisk> MakeAsync()
    {
        DurablePlatform platform = DurablePlatform.OnOneDisk(new SimulatedDisk());
        await using (platform.ConfigureAwait(false))
        {
            await platform.CreateCounterAsync("one");
            await platform.TickAsync("one");
            await platform.CheckpointAsync("one", "a");
            await platform.CheckpointAsync("one", "b");
            await platform.CreateCounterAsync("base");
            await platform.Templates.ConvertAsync("base").Guarded();
            await platform.Instances.CreateAsync(new CreateInstanceRequest { Name = "clone", Template = "base", Autostart = false }).Guarded();
            await platform.Instances.StopAsync("one").Guarded();
            await MakeVolumesAsync(platform);
        }

        return platform.Disk;
    }

    private static async Task MakeVolumesAsync(DurablePlatform platform)
    {
        IVolumeStore volumes = platform.Platform.Volumes;
        foreach (string name in (string[])["data", "template", "blank", "other"])
        {
            await volumes.CreateAsync(new CreateVolumeRequest { Name = name, SizeMb = 1, Filesystem = VolumeFilesystem.None }).Guarded();
        }

        await WriteAsync(platform, "worker", "data", "point");
        await platform.CheckpointAsync("worker", "v");
        Assert.Equal("ok 2", await platform.AskAsync("worker", "put who now"));
        await platform.Instances.StopAsync("worker").Guarded();
        await WriteAsync(platform, "filler", "template", "frozen");
        await platform.Instances.DeleteAsync("filler").Guarded();
        await WriteAsync(platform, "another", "other", "else");
        await platform.Instances.DeleteAsync("another").Guarded();
        await volumes.ConvertAsync("template").Guarded();
        await volumes.CreateAsync(new CreateVolumeRequest { Name = "made", Template = "template" }).Guarded();
        await platform.Platform.WhenVolumesIdleAsync().Guarded();
    }

    private static async Task WriteAsync(DurablePlatform platform, string instance, string volume, string value)
    {
        await platform.Instances.CreateAsync(DurablePlatform.Request("kv") with
        {
            Name = instance,
            Volumes = [new InstanceVolume { Volume = volume, At = "/data" }],
            WaitTimeout = Timeout.InfiniteTimeSpan,
        }).Guarded();
        Assert.Equal("ok 1", await platform.AskAsync(instance, $"put who {value}"));
    }

    internal static CreateInstanceRequest WithVolume(string volume) => DurablePlatform.Request("kv") with
    {
        Volumes = [new InstanceVolume { Volume = volume, At = "/data" }],
        WaitTimeout = Timeout.InfiniteTimeSpan,
    };

    /// <summary>Asks a guest. Nobody answers for one that has ended.</summary>
    internal static async Task<string> AskAsync(DurablePlatform platform, NameOrUuid instance, string command)
    {
        Task<string> answer = platform.AskAsync(instance, command);
        Task<Instance> ended = platform.Instances.WaitAsync(instance, InstanceState.Stopped);
        if (await Task.WhenAny(answer, ended).Guarded() == answer)
        {
            return await answer;
        }

        Instance stopped = await ended;
        throw new InvalidOperationException($"'{command}': the guest has ended: {stopped.StopReason} {stopped.StopCode} {platform.Instances.ReadLog(instance).Text}");
    }

    private static Func<DurablePlatform, Guid> CheckpointOf(string name) => platform => platform.Checkpoints.Get(name).Uuid;

    private static Func<DurablePlatform, Guid> InstanceOf(string name) => platform => platform.Instances.Get(name).Uuid;

    private static Func<DurablePlatform, Guid> VolumeOf(string name) => platform => platform.Platform.Volumes.Get(name).Uuid;

    private static async Task<string> CountAsync(DurablePlatform platform, CreateInstanceRequest request)
    {
        Instance made = await platform.Instances.CreateAsync(request).Guarded();
        CounterTick tick = await platform.TickAsync(made.Uuid);
        return $"{tick.Nonce} {tick.Tick}";
    }

    private static async Task<string> CountCloneAsync(DurablePlatform platform)
    {
        await platform.Instances.StartAsync("clone").Guarded();
        await platform.Instances.WaitAsync("clone", InstanceState.Running).Guarded();
        CounterTick tick = await platform.TickAsync("clone");
        return $"{tick.Nonce} {tick.Tick}";
    }

    private static async Task<string> AskWorkerAsync(DurablePlatform platform)
    {
        await platform.Instances.StartAsync("worker").Guarded();
        return await AskAsync(platform, "worker", "get who");
    }

    private static async Task<string> ReadAsync(DurablePlatform platform, CreateInstanceRequest request)
    {
        Instance reader = await platform.Instances.CreateAsync(request).Guarded();
        return $"{await AskAsync(platform, reader.Uuid, "get who")} {await AskAsync(platform, reader.Uuid, "check")}";
    }

    /// <param name="Name">What is loaded.</param>
    /// <param name="Resource">The resource.</param>
    /// <param name="Ask">Makes a guest of it, and says what that answers.</param>
    internal sealed record Load(string Name, Func<DurablePlatform, Guid> Resource, Func<DurablePlatform, Task<string>> Ask);
}
