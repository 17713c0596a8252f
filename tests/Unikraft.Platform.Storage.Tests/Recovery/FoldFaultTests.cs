using Unikraft.Platform.Contracts;
using Unikraft.Platform.Storage.Tests.Testing;
using Unikraft.Platform.TestKit;
using Unikraft.Platform.Volumes;

namespace Unikraft.Platform.Storage.Tests.Recovery;

/// <summary>
/// Folding in the background, interrupted at each call to the disk: by an error, by a full disk, by the end of the process, by a power cut. The volume is what it was, to the sector, whoever
/// reads it; QEMU finds nothing wrong with any image; and what is left is folded in time. The guest writes meanwhile.
/// </summary>
public sealed class FoldFaultTests(Xunit.Abstractions.ITestOutputHelper output)
{
    private const int NoSpace = 28;
    private const int InputOutput = 5;
    private const int Clones = 9;
    private const int Folded = 3;
    private const string Guest = "guest";
    private const string Volume = "data";
    private const string At = "/data";

    /// <summary>QEMU judges what is left of one in so many.</summary>
    private static readonly int Judged = Judging.OneIn(4, 4, 4);

    /// <summary>How many calls further the next interruption is. Each test begins at another one, so that together they meet more of them.</summary>
    private static readonly int Stride = Judging.OneIn(11, 5);

    [Theory]
    [InlineData(NoSpace, false)]
    [InlineData(NoSpace, true)]
    [InlineData(InputOutput, false)]
    [InlineData(InputOutput, true)]
    public Task A_fold_that_meets_an_error_leaves_the_volume_as_it_was_and_is_done_later(int errno, bool isInUse) =>
        FailAsync(isInUse, (disk, at) => disk.Faults = (_, number) => number == at ? new Fault.Error(errno) : null, first: errno + (isInUse ? 3 : 0), mayRestart: true);

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public Task A_fold_that_meets_a_full_disk_leaves_the_volume_as_it_was_and_is_done_when_there_is_room(bool isInUse) => FailAsync(
        isInUse,
        (disk, at) => disk.Faults = (_, number) =>
        {
            if (number == at)
            {
                disk.Fill();
            }

            return null;
        },
        first: isInUse ? 4 : 2,
        mayRestart: false);

    [Theory]
    [InlineData(false, false)]
    [InlineData(false, true)]
    [InlineData(true, false)]
    [InlineData(true, true)]
    public async Task A_host_that_ends_at_any_call_of_a_fold_leaves_the_volume_as_it_was(bool isPowerCut, bool isInUse)
    {
        int points = 0;
        int judged = 0;
        for (int call = ((isPowerCut ? 1 : 0) + (isInUse ? 2 : 0)) % Stride; ; call += Stride)
        {
            string context = $"call {call}";
            Chain chain = await Chain.MakeAsync(isInUse);
            int at = call;
            chain.Disk.ResetCalls();
            chain.Disk.Faults = (_, number) => number == at ? new Fault.PowerCut() : null;
            await chain.FoldAsync(write: true);
            if (!chain.Disk.Off.IsCompleted)
            {
                chain.Disk.Faults = null;
                await chain.Platform.DisposeAsync();
                break;
            }

            points++;
            chain.Platform.Abandon();
            SimulatedDisk left = isPowerCut ? chain.Disk.AfterPowerCut(new Random(call)) : chain.Disk.AfterKill();
            await chain.CheckAfterAsync(left, context, mayFold: true);
            if (points % Judged == 0)
            {
                judged++;
                using ExportedImages images = new(left);
                images.Judge(chain.Volumes, context);
            }
        }

        output.WriteLine($"{points} points, {judged} judged");
        Assert.True(points > 40 / Stride, $"{points} points");
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task A_fold_gives_way_to_whoever_wants_the_volume_and_is_done_after_that(bool isInUse)
    {
        Chain chain = await Chain.MakeAsync(isInUse);
        await using DurablePlatform platform = chain.Platform;
        using ManualResetEventSlim goOn = new();
        TaskCompletionSource folding = new(TaskCreationOptions.RunContinuationsAsynchronously);

        // The platform writes as well meanwhile: this is whoever has made the file.
        AsyncLocal<bool> isFold = new();
        chain.Disk.Faults = (call, _) =>
        {
            isFold.Value |= call is "CreateNew";
            if (isFold.Value && call is "Write" && folding.TrySetResult())
            {
                goOn.Wait();
            }

            return null;
        };
        Task deleted = chain.FoldAsync(write: false);
        await folding.Task.Guarded();
        Task<Volume> clone = platform.Platform.Volumes.CloneAsync(Volume, new CloneVolumeRequest { Name = "now" });
        Assert.False(clone.IsCompleted);
        goOn.Set();
        await clone.Guarded();
        await deleted.Guarded();

        // The clone needs the images as they were.
        Assert.Equal(Clones + 2, chain.Depth);
        await chain.CheckAsync("given way");
        await chain.FoldAgainAsync();
        Assert.True(chain.Depth <= Folded + 1, $"{chain.Depth} images");
        await chain.CheckAsync("folded");
    }

    private async Task FailAsync(bool isInUse, Action<SimulatedDisk, int> arm, int first, bool mayRestart)
    {
        int points = 0;
        int judged = 0;
        int late = 0;
        int afterRestart = 0;
        bool isReached = true;
        for (int call = first % Stride; isReached; call += Stride)
        {
            string context = $"call {call}";
            Chain chain = await Chain.MakeAsync(isInUse);
            await using (chain.Platform)
            {
                chain.Disk.ResetCalls();
                arm(chain.Disk, call);
                await chain.FoldAsync(write: true);
                isReached = chain.Disk.Calls.Count > call;
                chain.Disk.Faults = null;
                chain.Disk.Capacity = long.MaxValue;
                if (chain.Depth > Folded && chain.IsAlone)
                {
                    // Nobody does anything with the volume: it is tried again in time.
                    late++;
                    await chain.PassTimeAsync();
                    afterRestart += mayRestart && isInUse && chain.Depth > Folded ? 1 : 0;
                }

                if (mayRestart && isInUse)
                {
                    // After a flush that failed a volume takes no more writes until its instance is started again.
                    await chain.RestartAsync();
                }

                await chain.CheckAsync(context);
                Assert.True(chain.Depth <= Folded || !chain.IsAlone, $"{context}: {chain.Depth} images");

                // The next occasion: another clone that goes.
                await chain.FoldAgainAsync();
                await chain.CheckAsync(context + ", and again");
                Assert.True(chain.Depth <= Folded + 1, $"{context}, and again: {chain.Depth} images");
            }

            points++;
            SimulatedDisk left = chain.Disk.AfterKill();
            await chain.CheckAfterAsync(left, context, mayFold: false);
            if (points % Judged == 0)
            {
                judged++;
                using ExportedImages images = new(left);
                images.Judge(chain.Volumes, context);
            }
        }

        output.WriteLine($"{points} points, {judged} judged; {late} times it was folded later, {afterRestart} times when the instance was started again");
        Assert.True(points > 40 / Stride, $"{points} points");
        Assert.True(late > 5 / Stride, $"{late} times it was folded later");
        Assert.True(afterRestart <= points / 3, $"{afterRestart} times it was folded when the instance was started again");
    }

    /// <summary>A volume whose images were cut again and again, and of which the last clone is about to go: then they are folded.</summary>
    private sealed class Chain
    {
        private static readonly Lazy<Task<(SimulatedDisk Disk, SectorModel Model, Guid Volume)>> Prepared = new(PrepareAsync);

        private readonly AsyncLocal<bool> _isCaller = new();
        private readonly SectorModel _model;
        private readonly bool _isInUse;
        private readonly Guid _volume;
        private int _stamp = Clones;

        /// <summary>How many timers of the platform were made that have something of whoever has caused them.</summary>
        private int _carried;

        private Chain(DurablePlatform platform, SectorModel model, Guid volume, bool isInUse) => (Platform, _model, _volume, _isInUse) = (platform, model, volume, isInUse);

        internal DurablePlatform Platform { get; }

        internal SimulatedDisk Disk => Platform.Disk;

        /// <summary>Whether no clone needs its images any more.</summary>
        internal bool IsAlone => Platform.Platform.Volumes.List().Count == 1;

        internal int Depth => Platform.Platform.Volumes.Get(Volume).Depth;

        internal IReadOnlyDictionary<Guid, SectorModel> Volumes => new Dictionary<Guid, SectorModel> { [_volume] = _model };

        /// <summary>One that is as it was made the first time.</summary>
        internal static async Task<Chain> MakeAsync(bool isInUse)
        {
            (SimulatedDisk disk, SectorModel model, Guid volume) = await Prepared.Value.Guarded();
            Chain chain = new(DurablePlatform.OnOneDisk(disk.AfterKill()), model.Clone(), volume, isInUse);
            chain.Platform.Time.TimerMade = callback =>
                chain._carried += chain._isCaller.Value && callback.Method.DeclaringType?.Assembly == typeof(UnikraftPlatform).Assembly ? 1 : 0;
            await chain.Platform.Platform.WhenVolumesIdleAsync().Guarded();
            if (isInUse)
            {
                await LineageModel.StartAsync(chain.Platform, Guest);
            }

            Assert.Equal(Clones + 1, chain.Depth);
            return chain;
        }

        private static async Task<(SimulatedDisk Disk, SectorModel Model, Guid Volume)> PrepareAsync()
        {
            SimulatedDisk disk = new();
            SectorModel model = new(1);
            await using DurablePlatform platform = DurablePlatform.OnOneDisk(disk);
            IVolumeStore volumes = platform.Platform.Volumes;
            Guid volume = (await volumes.CreateAsync(new CreateVolumeRequest { Name = Volume, SizeMb = 1, Filesystem = VolumeFilesystem.None }).Guarded()).Uuid;
            await platform.Instances.CreateAsync(DurablePlatform.Request("kv") with
            {
                Name = Guest,
                Volumes = [new InstanceVolume { Volume = Volume, At = At }],
                WaitTimeout = Timeout.InfiniteTimeSpan,
            }).Guarded();
            for (int clone = 0; clone < Clones; clone++)
            {
                await model.WriteAsync(platform.DeviceOf(Guest, At), clone + 1);
                await volumes.CloneAsync(Volume, new CloneVolumeRequest { Name = $"clone{clone}" }).Guarded();
            }

            // The newest image is needed by somebody else as long as its clone is there.
            await platform.Instances.StopAsync(Guest).Guarded();
            for (int clone = 0; clone < Clones - 1; clone++)
            {
                await volumes.DeleteAsync($"clone{clone}").Guarded();
            }

            await platform.Platform.WhenVolumesIdleAsync().Guarded();
            await platform.DisposeAsync();
            return (disk, model, volume);
        }

        /// <summary>Lets the last clone go, and the guest write while the images are folded.</summary>
        internal async Task FoldAsync(bool write)
        {
            _isCaller.Value = true;
            try
            {
                await UnlessOffAsync(Platform.Platform.Volumes.DeleteAsync($"clone{Clones - 1}"));
                if (write && _isInUse)
                {
                    await UnlessOffAsync(WriteAsync());
                }

                await UnlessOffAsync(Platform.Platform.WhenVolumesIdleAsync());
            }
            catch (Exception error) when (error is PlatformException or PowerCutException)
            {
                // The clone may be there or not, and what was being written too.
                if (error is PlatformException)
                {
                    await UnlessOffAsync(Platform.Platform.WhenVolumesIdleAsync());
                }
            }
        }

        internal async Task FoldAgainAsync()
        {
            IVolumeStore volumes = Platform.Platform.Volumes;
            await volumes.CloneAsync(Volume, new CloneVolumeRequest { Name = "again" }).Guarded();
            foreach (Volume clone in volumes.List().Where(static volume => volume.Name is not Volume))
            {
                await volumes.DeleteAsync(clone.Uuid).Guarded();
            }

            await Platform.Platform.WhenVolumesIdleAsync().Guarded();
        }

        /// <summary>Lets the time pass after which it is tried again.</summary>
        internal Task PassTimeAsync()
        {
            Platform.Time.Advance(TimeSpan.FromMinutes(1));
            return Platform.Platform.WhenVolumesIdleAsync().Guarded();
        }

        internal async Task RestartAsync()
        {
            await Platform.Instances.StopAsync(Guest).Guarded();
            await Platform.Platform.WhenVolumesIdleAsync().Guarded();
            await LineageModel.StartAsync(Platform, Guest);
        }

        internal async Task CheckAsync(string context)
        {
            if (_isInUse)
            {
                await WriteAsync();
                await _model.AssertHeldByAsync(Platform.DeviceOf(Guest, At), context);
            }

            Assert.Null(Platform.Platform.Volumes.Get(Volume).Error);
            Assert.Equal(0, _carried);
        }

        /// <summary>What the next start finds.</summary>
        internal async Task CheckAfterAsync(SimulatedDisk left, string context, bool mayFold)
        {
            await using DurablePlatform after = DurablePlatform.OnOneDisk(left);
            await after.Platform.WhenVolumesIdleAsync().Guarded();
            Assert.Empty(await after.Platform.Data!.VerifyAsync().Guarded());
            Assert.Empty(after.Platform.Data!.DamageFound);
            await LineageModel.StartAsync(after, Guest);
            await _model.AssertHeldByAsync(after.DeviceOf(Guest, At), $"{context}, after the next start");
            if (!mayFold)
            {
                return;
            }

            foreach (Volume clone in after.Platform.Volumes.List().Where(static volume => volume.Name is not Volume))
            {
                await after.Platform.Volumes.DeleteAsync(clone.Uuid).Guarded();
            }

            await after.Platform.Volumes.CloneAsync(Volume, new CloneVolumeRequest { Name = "again" }).Guarded();
            await after.Platform.Volumes.DeleteAsync("again").Guarded();
            await after.Platform.WhenVolumesIdleAsync().Guarded();
            await _model.AssertHeldByAsync(after.DeviceOf(Guest, At), $"{context}, folded after the next start");
            Assert.True(after.Platform.Volumes.Get(Volume).Depth <= Folded + 1, $"{context}: {after.Platform.Volumes.Get(Volume).Depth} images");
        }

        private Task WriteAsync() => _model.WriteAsync(Platform.DeviceOf(Guest, At), ++_stamp);

        private async Task UnlessOffAsync(Task task)
        {
            if (await Task.WhenAny(task, Disk.Off).Guarded() == task)
            {
                await task.Guarded();
            }
        }
    }
}
