using System.Collections.Concurrent;
using Unikraft.Platform.Contracts.Modeling;
using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Contracts;

public abstract partial class PlatformContract
{
    private const int Callers = 16;

    [ContractTheory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    public async Task Sixteen_callers_at_once_have_legal_outcomes_and_lose_nothing(int seed)
    {
        const int Rounds = 25;
        await CreateCounterAsync("kept");
        await CheckpointAsync("kept", "chk");
        IAsyncEnumerable<InstanceTransition> watch = Instances.WatchAllAsync();
        ConcurrentBag<string> illegal = [];
        int loads = 0;
        int checkpoints = 0;

        await Task.WhenAll(Enumerable.Range(0, Callers).Select(caller => Task.Run(async () =>
        {
            Dice dice = new((ulong)((seed * 1000) + caller));
            string own = $"tag-{caller}";
            for (int round = 0; round < Rounds; round++)
            {
                string name = $"shared-{dice.Next(4)}";
                using CancellationTokenSource cancellation = new();
                try
                {
                    Task operation = dice.Next(24) switch
                    {
                        0 or 1 => Instances.CreateAsync(Request("counter", "--period-ms", "0") with { Name = name, ScaleToZero = Stateful }, cancellation.Token),
                        2 => LoadAsync(),
                        3 => Instances.CreateAsync(new CreateInstanceRequest { Name = name, BranchFrom = "kept" }, cancellation.Token),
                        4 => Instances.StartAsync(name, cancellation.Token),
                        5 => Instances.StopAsync(name, cancellationToken: cancellation.Token),
                        6 => Instances.StopAsync(name, StopRequest.Forced, cancellation.Token),
                        7 => Instances.SuspendAsync(name, cancellation.Token),
                        8 => ConnectAsync(),
                        9 => Instances.DeleteAsync(name, cancellation.Token),
                        10 => Instances.PatchAsync("kept", round % 2 == 0 ? [new PatchOperation.AddTags(own)] : [new PatchOperation.DelTags(own)]),
                        11 => CheckpointKeptAsync(),
                        12 => Templates.ConvertAsync(name, cancellation.Token),
                        13 or 14 => Instances.CreateAsync(new CreateInstanceRequest { Template = $"shared-{dice.Next(4)}", Name = name }, cancellation.Token),
                        15 => Templates.DeleteAsync(name, cancellation.Token),
                        16 => Checkpoints.CreateAsync(new CreateCheckpointRequest { From = name, Name = $"point-{dice.Next(3)}" }, cancellation.Token),
                        17 => Instances.CreateAsync(new CreateInstanceRequest { Checkpoint = $"point-{dice.Next(3)}", Name = name }, cancellation.Token),
                        18 => Checkpoints.DeleteAsync($"point-{dice.Next(3)}", cancellation.Token),
                        19 => Instances.WaitAsync(name, InstanceState.Standby, TimeSpan.Zero, cancellation.Token),
                        20 => Instances.PatchAsync(name, [new PatchOperation.SetMemoryMb(64 + (8 * dice.Next(2))), new PatchOperation.SetServices(Http)], cancellation.Token),
                        21 => Task.Run(() => (Instances.ReadLog(name), Instances.GetMetrics(name)), CancellationToken.None),
                        22 => Instances.CreateReplicasAsync(Request("counter", "--period-ms", "0") with { Name = name }, replicas: 1, cancellation.Token),
                        _ => Instances.StopAsync(name, new StopRequest { DrainTimeout = TimeSpan.FromSeconds(1) }, cancellation.Token),
                    };
                    if (dice.Next(5) == 0)
                    {
                        await cancellation.CancelAsync();
                    }

                    await operation.Guarded();

                    async Task LoadAsync()
                    {
                        await Instances.CreateAsync(new CreateInstanceRequest { Name = name, Checkpoint = "chk" });
                        Interlocked.Increment(ref loads);
                    }

                    async Task ConnectAsync()
                    {
                        using IInstanceConnection connection = await Instances.ConnectAsync(name, cancellation.Token);
                    }

                    async Task CheckpointKeptAsync()
                    {
                        await Checkpoints.CreateAsync(new CreateCheckpointRequest
                        {
                            From = "kept",
                            WaitTimeout = Timeout.InfiniteTimeSpan,
                            Snapshot = new SnapshotOptions { WaitForPending = true },
                        });
                        Interlocked.Increment(ref checkpoints);
                    }
                }
                catch (OperationCanceledException) when (cancellation.IsCancellationRequested)
                {
                    // What its caller wanted.
                }
                catch (PlatformException error) when (error.Code
                    is PlatformErrorCode.NotFound
                    or PlatformErrorCode.AlreadyExists
                    or PlatformErrorCode.WrongState
                    or PlatformErrorCode.TimedOut
                    or PlatformErrorCode.SnapshotPending)
                {
                    // Somebody else came first.
                }
                catch (Exception error)
                {
                    illegal.Add(error.ToString());
                }
            }

            await Instances.PatchAsync("kept", [new PatchOperation.AddTags(own)]).Guarded();
        })));

        Assert.Empty(illegal);
        Instance kept = Instances.Get("kept");
        Assert.Equal(InstanceState.Running, kept.State);
        Assert.Equal(Callers, kept.Tags.Count);
        Assert.Equal(loads, Checkpoints.Get("chk").LoadCount);
        Assert.Equal(checkpoints + 1, Checkpoints.List().Count(static checkpoint => !checkpoint.Name.StartsWith("point-", StringComparison.Ordinal)));
        Assert.All(Templates.List(), static template => Assert.StartsWith("shared-", template.Name, StringComparison.Ordinal));
        Assert.Equal(checkpoints + 1, Instances.GetHistory("kept").Count);
        foreach (Instance instance in Instances.List())
        {
            await Instances.StopAsync(instance.Uuid, StopRequest.Forced).Guarded();
            Instance stopped = await Instances.DeleteAsync(instance.Uuid).Guarded();
            Assert.Equal((InstanceState.Stopped, 0), (stopped.State, stopped.Restart?.Attempt ?? 0));
        }

        Assert.Empty(Instances.List());
        await Platform.DisposeAsync().Guarded();
        Dictionary<Guid, (long Number, InstanceState? State)> lives = [];
        await foreach (InstanceTransition transition in watch)
        {
            (long number, InstanceState? state) = lives.GetValueOrDefault(transition.Uuid);
            // Who was there before is not heard of from the beginning.
            if (transition.Uuid != kept.Uuid)
            {
                Assert.Equal((number + 1, state), (transition.Number, transition.From));
            }

            lives[transition.Uuid] = (transition.Number, transition.To);
        }

        Assert.All(lives.Values, life => Assert.Null(life.State));
    }
}
