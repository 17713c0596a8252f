using Unikraft.Platform.Contracts;
using Unikraft.Platform.Storage.Tests.Testing;
using Unikraft.Platform.TestKit;
using Unikraft.Platform.Volumes;

namespace Unikraft.Platform.Storage.Tests.Recovery;

/// <summary>
/// Errors of the host at each call in turn of what instances do with volumes: the operation that meets one fails as a whole with an error that has a type, everybody else goes on, and it
/// succeeds once the fault is gone. A host that ends at any call loses nothing that was acknowledged. QEMU judges the images that are left.
/// </summary>
public sealed class LineageFaultTests(Xunit.Abstractions.ITestOutputHelper output)
{
    private const int NoSpace = 28;
    private const int InputOutput = 5;

    /// <summary>QEMU judges what is left of one in so many faults.</summary>
    private static readonly int Judged = Judging.OneIn(10, 4, 4);

    /// <summary>How many calls further the next fault is. Each test begins at another one, so that together they meet more of them.</summary>
    private static readonly int Stride = Judging.OneIn(23, 11);

    [Theory]
    [InlineData(NoSpace)]
    [InlineData(InputOutput)]
    public Task A_call_that_fails_fails_one_operation_on_an_instance_with_volumes(int errno) =>
        RunAsync((disk, at) => disk.Faults = (_, number) => number == at ? new Fault.Error(errno) : null, first: errno, mayRestart: true);

    [Fact]
    public Task A_full_disk_fails_one_operation_on_an_instance_with_volumes_and_room_is_enough_to_go_on() => RunAsync((disk, at) => disk.Faults = (_, number) =>
    {
        if (number == at)
        {
            disk.Fill();
        }

        return null;
    }, first: 0);

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task A_host_that_ends_at_any_call_loses_nothing_of_instances_with_volumes(bool isPowerCut)
    {
        int points = 0;
        int judged = 0;
        bool isEnded = true;
        for (int call = (isPowerCut ? 3 : 8) % Stride; isEnded; call += Stride)
        {
            int at = call;
            string context = $"call {call}";
            SimulatedDisk disk = new();
            LineageModel model = new();
            DurablePlatform platform = DurablePlatform.OnOneDisk(disk);
            disk.ResetCalls();
            disk.Faults = (_, number) => number == at ? new Fault.PowerCut() : null;
            isEnded = await RunUntilOffAsync(platform, model);
            if (!isEnded)
            {
                disk.Faults = null;
                await platform.DisposeAsync();
                break;
            }

            points++;
            platform.Abandon();

            // Nothing of what the process does from now on reaches the disk.
            SimulatedDisk left = isPowerCut ? disk.AfterPowerCut(new Random(call)) : disk.AfterKill();
            Dictionary<Guid, SectorModel> volumes;
            await using (DurablePlatform after = DurablePlatform.OnOneDisk(left))
            {
                await after.Platform.WhenVolumesIdleAsync().Guarded();
                volumes = await model.CheckAsync(after, context, isRestarted: true);
                Assert.Empty(await after.Platform.Data!.VerifyAsync().Guarded());
                Assert.Empty(after.Platform.Data!.DamageFound);
            }

            if (points % Judged == 1)
            {
                judged++;
                using ExportedImages images = new(left);
                images.Judge(volumes, context);
            }
        }

        output.WriteLine($"{points} points, {judged} judged");
        Assert.True(points > 400 / Stride, $"{points} points");
    }

    private static async Task<bool> RunUntilOffAsync(DurablePlatform platform, LineageModel model)
    {
        foreach (LineageModel.Step step in LineageModel.Script)
        {
            try
            {
                Task done = model.DoAsync(platform, step);
                await Task.WhenAny(done, platform.Disk.Off);
                if (!platform.Disk.Off.IsCompleted)
                {
                    await done;

                    // A host that ends in its own work in the background does not come to the end of it.
                    await await Task.WhenAny(platform.Platform.WhenVolumesIdleAsync(), platform.Disk.Off).Guarded();
                }
            }
            catch (Exception error) when (platform.Disk.Off.IsCompleted && error is PowerCutException or PlatformException or AggregateException)
            {
                // What was under way may be there or not.
            }

            if (platform.Disk.Off.IsCompleted)
            {
                return true;
            }
        }

        return false;
    }

    private async Task RunAsync(Action<SimulatedDisk, int> arm, int first, bool mayRestart = false)
    {
        Dictionary<string, int> failures = new(StringComparer.Ordinal);
        int points = 0;
        int judged = 0;
        bool isReached = true;
        for (int call = first % Stride; isReached; call += Stride)
        {
            SimulatedDisk disk = new();
            LineageModel model = new();
            Dictionary<Guid, SectorModel> volumes;
            string context = $"call {call}";
            await using (DurablePlatform platform = DurablePlatform.OnOneDisk(disk))
            {
                disk.ResetCalls();
                arm(disk, call);
                foreach (LineageModel.Step step in LineageModel.Script)
                {
                    try
                    {
                        await model.DoAsync(platform, step);
                        await platform.Platform.WhenVolumesIdleAsync().Guarded();
                    }
                    catch (PlatformException error)
                    {
                        context = $"call {call}, {step.Name}: {error.Message}";
                        Assert.True(
                            error is StorageException or BlockDeviceException or DiskImageException or DataDamageException,
                            $"{context}: {error}");
                        failures[step.Name] = failures.GetValueOrDefault(step.Name) + 1;
                        disk.Faults = null;
                        disk.Capacity = long.MaxValue;
                        await platform.Platform.WhenVolumesIdleAsync().Guarded();
                        if (model.IsDone(platform))
                        {
                            // All but written down, which is tried again.
                            continue;
                        }

                        await model.CheckAsync(platform, context);
                        await RepeatAsync(platform, model, step, mayRestart);
                        await platform.Platform.WhenVolumesIdleAsync().Guarded();
                        await model.CheckAsync(platform, context + ", and again");
                    }
                }

                isReached = disk.Calls.Count > call;
                disk.Faults = null;
                disk.Capacity = long.MaxValue;
                await model.CheckAsync(platform, context);
            }

            points++;
            SimulatedDisk left = disk.AfterKill();
            await using (DurablePlatform after = DurablePlatform.OnOneDisk(left))
            {
                await after.Platform.WhenVolumesIdleAsync().Guarded();
                volumes = await model.CheckAsync(after, context, isRestarted: true);
                Assert.Empty(await after.Platform.Data!.VerifyAsync().Guarded());
            }

            if (points % Judged == 1)
            {
                judged++;
                using ExportedImages images = new(left);
                images.Judge(volumes, context);
            }
        }

        output.WriteLine($"{points} points, {judged} judged; failures: {string.Join(", ", failures.Select(static entry => $"{entry.Key} {entry.Value}"))}");
        Assert.True(points > 400 / Stride, $"{points} points");
    }

    private static async Task RepeatAsync(DurablePlatform platform, LineageModel model, LineageModel.Step step, bool mayRestart)
    {
        try
        {
            await model.DoAsync(platform, step);
        }
        catch (BlockDeviceException error) when (mayRestart && error.Error == BlockDeviceError.InputOutput)
        {
            // After a flush that failed a volume takes no more writes until its instance is started again, and those that have an image with it.
            Instance[] running = [.. platform.Instances.List().Where(static instance => instance.State == InstanceState.Running)];
            foreach (Instance instance in running)
            {
                await platform.Instances.StopAsync(instance.Uuid).Guarded();
            }

            // They share images, which are as they are until the last one has closed them.
            await Task.Run(async () =>
            {
                while (platform.Platform.Volumes.List().Any(static volume => volume.AttachedTo.Any(static attachment => attachment.IsMounted)))
                {
                    await Task.Yield();
                }
            }).Guarded();
            foreach (Instance instance in running)
            {
                await LineageModel.StartAsync(platform, instance.Name);
            }

            await model.DoAsync(platform, step);
        }
    }
}
