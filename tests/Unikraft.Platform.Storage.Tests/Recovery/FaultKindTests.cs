using Unikraft.Platform.Contracts;
using Unikraft.Platform.Storage.Tests.Testing;
using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Storage.Tests.Recovery;

/// <summary>
/// Every kind of trouble that a disk makes, at each call of a script in turn: instances, checkpoints, templates, volumes and archives. Afterwards the power goes out, and what was
/// acknowledged is there.
/// </summary>
public sealed class FaultKindTests
{
    private const int NoSpace = 28;
    private const int Quota = 122;
    private const int InputOutput = 5;
    private const int Interrupted = 4;
    private const string ArchivePath = "/elsewhere/point.tar";

    private static readonly string[] Syncs = ["Sync", "SyncDirectory"];

    [Theory]
    [InlineData("no space", NoSpace)]
    [InlineData("quota", Quota)]
    [InlineData("error", InputOutput)]
    public Task An_error_fails_one_operation_and_loses_nothing(string kind, int errno) =>
        ForEachCallAsync(kind, static _ => true, _ => new Fault.Error(errno), mayFail: true);

    [Fact]
    public Task A_torn_write_fails_one_operation_and_loses_nothing() =>
        ForEachCallAsync("torn", static call => call is "Write", static _ => new Fault.Torn(InputOutput), mayFail: true);

    /// <remarks>What the sync was to take to the disk never gets there, whatever later ones say: see the disk.</remarks>
    [Fact]
    public Task A_sync_that_fails_is_not_made_good_by_the_next() =>
        ForEachCallAsync("failed sync", Syncs.Contains, static _ => new Fault.Error(InputOutput), mayFail: true);

    [Fact]
    public Task An_interruption_changes_nothing() => ForEachCallAsync("interrupted", static _ => true, static _ => new Fault.Error(Interrupted), mayFail: false);

    [Fact]
    public Task A_short_transfer_changes_nothing() => ForEachCallAsync("short", static call => call is "Write" or "Read", static _ => new Fault.Short(), mayFail: false);

    /// <summary>Nothing is acknowledged before the sync is done that it needs, and others go on.</summary>
    [Fact]
    public async Task A_slow_sync_holds_up_nobody_else()
    {
        int held = 0;
        for (int sync = 0; ; sync++)
        {
            SimulatedDisk disk = NewDisk();
            await using DurablePlatform platform = DurablePlatform.OnOneDisk(disk);
            await platform.CreateCounterAsync("other");
            Model model = new();
            using ManualResetEventSlim done = new();
            TaskCompletionSource reached = new(TaskCreationOptions.RunContinuationsAsynchronously);
            int seen = 0;
            int at = sync;
            disk.Faults = (call, _) =>
            {
                if (Syncs.Contains(call) && Interlocked.Increment(ref seen) == at + 1)
                {
                    // The power may go out while it waits.
                    model.Freeze(disk);
                    reached.TrySetResult();
                    done.Wait();
                }

                return null;
            };
            Task script = Task.Run(() => model.RunAsync(platform));
            await Task.WhenAny(script, reached.Task).Guarded();
            bool isHeld = reached.Task.IsCompleted;
            if (isHeld)
            {
                held++;
                Assert.Equal(1, (await platform.TickAsync("other")).Tick);
                Assert.Equal("other", platform.Instances.Get("other").Name);
                Assert.NotEmpty(platform.Instances.List());
            }

            done.Set();
            await script.Guarded();
            Assert.Equal(0, model.Failed);
            disk.Faults = null;
            if (!isHeld)
            {
                break;
            }

            await model.CheckFrozenAsync();
        }

        Assert.InRange(held, 20, int.MaxValue);
    }

    /// <summary>A volume says that something is being done with it, until that is over.</summary>
    [Theory]
    [InlineData("clone", VolumeState.Idle, VolumeState.Idle)]
    [InlineData("clone", VolumeState.Available, VolumeState.Available)]
    [InlineData("resize", VolumeState.Idle, VolumeState.Idle)]
    [InlineData("convert", VolumeState.Available, VolumeState.Template)]
    public async Task A_volume_is_busy_while_something_is_done_with_it(string operation, VolumeState before, VolumeState after)
    {
        SimulatedDisk disk = NewDisk();
        await using DurablePlatform platform = DurablePlatform.OnOneDisk(disk);
        IVolumeStore volumes = platform.Platform.Volumes;
        CreateVolumeRequest request = new() { Name = "data", SizeMb = 1, Filesystem = VolumeFilesystem.None };
        await volumes.CreateAsync(request);
        await volumes.CreateAsync(request with { Name = "other" });
        if (before == VolumeState.Idle)
        {
            await platform.Instances.CreateAsync(DurablePlatform.Request("kv") with { Volumes = [new InstanceVolume { Volume = "data", At = "/data" }], Autostart = false }).Guarded();
        }

        using ManualResetEventSlim done = new();
        TaskCompletionSource reached = new(TaskCreationOptions.RunContinuationsAsynchronously);
        Assert.Equal(before, volumes.Get("data").State);
        disk.Faults = (call, _) =>
        {
            if (Syncs.Contains(call) && volumes.Get("data").State == VolumeState.Busy)
            {
                reached.TrySetResult();
                done.Wait();
            }

            return null;
        };
        Task<Volume> under = Task.Run(() => operation switch
        {
            "clone" => volumes.CloneAsync("data"),
            "resize" => volumes.ResizeAsync("data", 2),
            _ => volumes.ConvertAsync("data"),
        });
        try
        {
            await reached.Task.Guarded();
            Assert.Equal(VolumeState.Busy, volumes.List().Single(static volume => volume.Name is "data").State);
            Assert.Equal(VolumeState.Available, volumes.Get("other").State);
            Assert.False(under.IsCompleted);
        }
        finally
        {
            disk.Faults = null;
            done.Set();
        }

        await under.Guarded();
        Assert.Equal(after, volumes.Get("data").State);
    }

    private static SimulatedDisk NewDisk()
    {
        SimulatedDisk disk = new();
        disk.MakeDirectory("/elsewhere");
        disk.SyncDirectory("/");
        return disk;
    }

    private static async Task ForEachCallAsync(string kind, Func<string, bool> isMeant, Func<string, Fault> fault, bool mayFail)
    {
        int faults = 0;
        for (int call = 0; ; call++)
        {
            SimulatedDisk disk = NewDisk();
            Model model = new();
            int seen = 0;
            bool isReached = false;
            int at = call;
            await using (DurablePlatform platform = DurablePlatform.OnOneDisk(disk))
            {
                disk.Faults = (name, _) =>
                {
                    if (!isMeant(name) || Interlocked.Increment(ref seen) != at + 1)
                    {
                        return null;
                    }

                    isReached = true;
                    return fault(name);
                };
                await model.RunAsync(platform);
                disk.Faults = null;
                Assert.True(mayFail ? model.Failed <= Model.MostThatNeedOne : model.Failed == 0, $"{kind} at call {call}: {model.Failed} failed");

                // Once more, with a change that takes with it what could not be written: what is acknowledged now is there, whatever became of the rest.
                await platform.Instances.CreateAsync(DurablePlatform.Request("counter", "--period-ms", "0") with { Name = "last", Autostart = false }).Guarded();
                model.Acknowledge("instance last");
                model.Freeze(disk);
            }

            await model.CheckFrozenAsync();
            if (!isReached)
            {
                break;
            }

            faults++;
        }

        Assert.InRange(faults, 20, int.MaxValue);
    }

    /// <summary>What was acknowledged, and the disk as a power cut leaves it.</summary>
    private sealed class Model
    {
        /// <summary>How much can fail because of one thing that was not made: all that needs it.</summary>
        internal const int MostThatNeedOne = 8;

        private readonly Lock _lock = new();
        private readonly HashSet<string> _there = new(StringComparer.Ordinal);
        private readonly HashSet<string> _doubtful = new(StringComparer.Ordinal);
        private (SimulatedDisk Disk, HashSet<string> There, HashSet<string> Doubtful)? _frozen;
        private string[] _underWay = [];

        internal int Failed { get; private set; }

        internal async Task RunAsync(DurablePlatform platform)
        {
            IVolumeStore volumes = platform.Platform.Volumes;
            await DoAsync(() => platform.CreateCounterAsync("one"), "instance one");
            await DoAsync(() => platform.Instances.PatchAsync("one", [new PatchOperation.SetTags("tagged")]));
            await DoAsync(() => platform.CheckpointAsync("one", "point"), "checkpoint point");
            await DoAsync(() => platform.Instances.CreateAsync(new CreateInstanceRequest { Checkpoint = "point", Name = "loaded", WaitTimeout = Timeout.InfiniteTimeSpan }), "instance loaded");
            await DoAsync(() => platform.Instances.SuspendAsync("loaded"));
            await DoAsync(() => volumes.CreateAsync(new CreateVolumeRequest { Name = "data", SizeMb = 1, Filesystem = VolumeFilesystem.None }), "volume data");
            await DoAsync(
                () => platform.Instances.CreateAsync(DurablePlatform.Request("kv") with
                {
                    Name = "kv",
                    Volumes = [new InstanceVolume { Volume = "data", At = "/data" }],
                    WaitTimeout = Timeout.InfiniteTimeSpan,
                }),
                "instance kv");
            await DoAsync(() => platform.CheckpointAsync("kv", "both"), "checkpoint both");
            await DoAsync(() => platform.Platform.Data!.ExportAsync("both", ArchivePath));
            await DoAsync(() => platform.Checkpoints.DeleteAsync("both"), "-checkpoint both");
            await DoAsync(() => platform.Platform.Data!.ImportAsync(ArchivePath), "checkpoint both");
            await DoAsync(() => platform.Templates.ConvertAsync("one"), "-instance one", "template one");
            await DoAsync(() => platform.Instances.DeleteAsync("loaded"), "-instance loaded");
            await DoAsync(() => platform.Checkpoints.DeleteAsync("point"), "-checkpoint point");
        }

        internal void Acknowledge(params string[] changes)
        {
            lock (_lock)
            {
                foreach (string change in changes)
                {
                    _ = change.StartsWith('-') ? _there.Remove(change[1..]) : _there.Add(change);
                }
            }
        }

        /// <summary>Takes what a power cut leaves now.</summary>
        internal void Freeze(SimulatedDisk disk)
        {
            lock (_lock)
            {
                HashSet<string> doubtful = [.. _doubtful, .. _underWay];
                _frozen = (disk.AfterPowerCut(new Random(_there.Count)), [.. _there], doubtful);
            }
        }

        internal async Task CheckFrozenAsync()
        {
            (SimulatedDisk disk, HashSet<string> there, HashSet<string> doubtful) = _frozen!.Value;
            await using DurablePlatform after = DurablePlatform.OnOneDisk(disk);
            HashSet<string> found =
            [
                .. after.Instances.List().Select(static instance => $"instance {instance.Name}"),
                .. after.Checkpoints.List().Select(static checkpoint => $"checkpoint {checkpoint.Name}"),
                .. after.Templates.List().Select(static template => $"template {template.Name}"),
                .. after.Platform.Volumes.List().Where(static volume => volume.Name is "data").Select(static volume => $"volume {volume.Name}"),
            ];
            string context = $"there {string.Join(", ", there.Order(StringComparer.Ordinal))}; doubtful {string.Join(", ", doubtful)}; found {string.Join(", ", found.Order(StringComparer.Ordinal))}";
            Assert.True(there.Except(doubtful).All(found.Contains), context);
            Assert.True(found.Except(doubtful).All(item => item is "instance other" || there.Contains(item)), context);
            Assert.Empty(after.Platform.Data!.DamageFound);
            Assert.Empty(await after.Platform.Data!.VerifyAsync().Guarded());
        }

        private async Task DoAsync(Func<Task> operation, params string[] changes)
        {
            string[] touched = [.. changes.Select(static change => change.TrimStart('-'))];
            lock (_lock)
            {
                _underWay = touched;
            }

            try
            {
                await operation().Guarded();
                Acknowledge(changes);
            }
            catch (PlatformException)
            {
                // It may hold at the next start or not.
                Failed++;
                _doubtful.UnionWith(touched);
            }
            finally
            {
                lock (_lock)
                {
                    _underWay = [];
                }
            }
        }
    }
}
