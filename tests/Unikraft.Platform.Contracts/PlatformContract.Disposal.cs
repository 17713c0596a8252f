using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Contracts;

public abstract partial class PlatformContract
{
    [ContractFact]
    public async Task Disposal_ends_everything_and_refuses_whatever_comes_later()
    {
        Instance instance = await CreateCrashAsync("loop");
        await CheckpointAsync(instance.Uuid, "chk");
        ConsoleSession console = Attach(instance.Uuid);
        Task<Instance> wait = Instances.WaitAsync(instance.Uuid, InstanceState.Stopped);
        Task<Instance> stop = Instances.StopAsync(instance.Uuid, new StopRequest { GracePeriod = Timeout.InfiniteTimeSpan });

        await Platform.DisposeAsync().Guarded();
        await Platform.DisposeAsync().Guarded();

        await Assert.ThrowsAsync<ObjectDisposedException>(() => wait.Guarded());
        Assert.Equal("FUP--", (await stop.Guarded()).StopReason!.Value.ToMask());
        Assert.Null(await console.ReadLineAsync());
        await console.DisposeAsync().Guarded();

        await AssertDisposedAsync(() => Instances.CreateAsync(Request("hello")));
        await AssertDisposedAsync(() => Instances.StartAsync(instance.Uuid));
        await AssertDisposedAsync(() => Instances.StopAsync(instance.Uuid));
        await AssertDisposedAsync(() => Instances.WaitAsync(instance.Uuid, InstanceState.Stopped));
        await AssertDisposedAsync(() => Instances.DeleteAsync(instance.Uuid));
        await AssertDisposedAsync(() => Checkpoints.CreateAsync(new CreateCheckpointRequest { From = instance.Uuid }));
        await AssertDisposedAsync(() => Checkpoints.WaitAsync("chk"));
        await AssertDisposedAsync(() => Checkpoints.DeleteAsync("chk"));
        await AssertDisposedAsync(() => Platform.StopAllAsync());
        Assert.Throws<ObjectDisposedException>(() => Instances.Get(instance.Uuid));
        Assert.Throws<ObjectDisposedException>(() => Instances.List());
        Assert.Throws<ObjectDisposedException>(() => Instances.ReadLog(instance.Uuid));
        Assert.Throws<ObjectDisposedException>(() => Instances.AttachConsole(instance.Uuid));
        Assert.Throws<ObjectDisposedException>(() => Instances.GetHistory(instance.Uuid));
        Assert.Throws<ObjectDisposedException>(() => Checkpoints.Get("chk"));
        Assert.Throws<ObjectDisposedException>(() => Checkpoints.List());
        Assert.Throws<ObjectDisposedException>(() => Checkpoints.GetHistory("chk"));
        Assert.NotEmpty(Platform.Hypervisor.Name);
    }

    [ContractFact]
    public async Task Disposal_in_the_middle_of_everything_ends_in_success_or_a_typed_error()
    {
        for (int round = 0; round < 5; round++)
        {
            IUnikraftPlatform platform = Build();
            Instance source = await platform.Instances
                .CreateAsync(Request("counter", "--period-ms", "0") with { WaitTimeout = Timeout.InfiniteTimeSpan })
                .Guarded();
            List<Task> operations =
            [
                Task.Run(() => platform.Instances.CreateAsync(Request("hello"))),
                Task.Run(() => platform.Instances.CreateAsync(Request("counter") with { WaitTimeout = Timeout.InfiniteTimeSpan })),
                Task.Run(() => platform.Instances.CreateAsync(new CreateInstanceRequest { BranchFrom = source.Uuid })),
                Task.Run(() => platform.Checkpoints.CreateAsync(
                    new CreateCheckpointRequest { From = source.Uuid, WaitTimeout = Timeout.InfiniteTimeSpan })),
                Task.Run(() => platform.Instances.StopAsync(source.Uuid)),
                Task.Run(() => platform.Instances.DeleteAsync(source.Uuid)),
                Task.Run(() => platform.StopAllAsync()),
            ];
            for (int i = 0; i < round; i++)
            {
                await Task.Yield();
            }

            await platform.DisposeAsync().Guarded();
            foreach (Task operation in operations)
            {
                Exception? error = await Record.ExceptionAsync(() => operation.Guarded());
                Assert.True(error is null or PlatformException or ObjectDisposedException, $"{error}");
            }
        }
    }

    [ContractFact]
    public async Task Of_many_who_want_one_name_one_gets_it()
    {
        Task<Instance>[] creations =
            [.. Enumerable.Range(0, 8).Select(_ => Task.Run(() => Instances.CreateAsync(Request("hello") with { Name = "wanted" })))];
        int created = 0;
        foreach (Task<Instance> creation in creations)
        {
            Exception? error = await Record.ExceptionAsync(() => creation.Guarded());
            Assert.True(error is null or NameConflictException, $"{error}");
            created += error is null ? 1 : 0;
        }

        Assert.Equal(1, created);
        Assert.Single(Instances.List());
    }

    [ContractFact]
    public async Task Starts_stops_and_deletes_at_the_same_time_end_in_success_or_a_typed_error()
    {
        for (int round = 0; round < 5; round++)
        {
            Instance instance = await CreateCounterAsync();
            Task[] operations =
            [
                Task.Run(() => Instances.StopAsync(instance.Uuid)),
                Task.Run(() => Instances.StopAsync(instance.Uuid, StopRequest.Forced)),
                Task.Run(() => Instances.StartAsync(instance.Uuid)),
                Task.Run(() => BranchAsync(instance.Uuid)),
                Task.Run(() => CheckpointAsync(instance.Uuid)),
                Task.Run(() => Instances.WaitAsync(instance.Uuid, InstanceState.Stopped)),
                Task.Run(() => Instances.DeleteAsync(instance.Uuid)),
            ];
            foreach (Task operation in operations)
            {
                Exception? error = await Record.ExceptionAsync(() => operation.Guarded());
                Assert.True(error is null or PlatformException, $"{error}");
            }

            Assert.Throws<ResourceNotFoundException>(() => Instances.Get(instance.Uuid));
        }
    }

    private static async Task AssertDisposedAsync(Func<Task> action) =>
        await Assert.ThrowsAsync<ObjectDisposedException>(() => action().Guarded());
}
