using System.Globalization;
using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Contracts;

public abstract partial class PlatformContract
{
    [ContractFact]
    public async Task A_watched_instance_tells_every_transition_in_order_until_it_is_gone()
    {
        Instance created = await Instances.CreateAsync(Request("counter", "--period-ms", "0") with { Name = "it", Autostart = false }).Guarded();
        IAsyncEnumerable<InstanceTransition> early = Instances.WatchAsync("it");
        await StartAsync("it");
        await Instances.WaitAsync("it", InstanceState.Running).Guarded();
        IAsyncEnumerable<InstanceTransition> late = Instances.WatchAsync(created.Uuid);
        await Instances.StopAsync("it").Guarded();
        await StartAsync("it");
        await Instances.WaitAsync("it", InstanceState.Running).Guarded();
        await Instances.StopAsync("it", new StopRequest { Force = true }).Guarded();
        await Instances.DeleteAsync("it").Guarded();

        // Nothing was read so far, and nothing is missing.
        InstanceTransition[] all = await CollectAsync(early).Guarded();
        Assert.Equal(
            [
                "2 stopped starting -",
                "3 starting running -",
                "4 running stopping -UP--",
                "5 stopping stopped -UPAK",
                "6 stopped starting -",
                "7 starting running -",
                "8 running stopping FUP--",
                "9 stopping stopped FUP--",
                "10 stopped gone FUP--",
            ],
            all.Select(Line));
        Assert.All(all, transition => Assert.Equal((created.Uuid, "it"), (transition.Uuid, transition.Name)));
        Assert.Equal(all.OrderBy(transition => transition.At).Select(transition => transition.At), all.Select(transition => transition.At));
        Assert.Equal(all[2..], await CollectAsync(late).Guarded());
        Assert.Equal(all[2..], await CollectAsync(late).Guarded());
        Assert.Throws<ResourceNotFoundException>(() => Instances.WatchAsync("it"));
    }

    [ContractFact]
    public async Task All_instances_are_watched_from_their_creation_to_their_end()
    {
        await using IUnikraftPlatform platform = Build();
        IAsyncEnumerable<InstanceTransition> watch = platform.Instances.WatchAllAsync();
        CreateInstanceRequest request = Request("counter", "--period-ms", "0") with { WaitTimeout = Timeout.InfiniteTimeSpan };
        await platform.Instances.CreateAsync(request with { Name = "a" }).Guarded();
        // A creation that fails is not told of, whether or not there was a machine.
        await Assert.ThrowsAsync<NameConflictException>(() => platform.Instances.CreateAsync(request with { Name = "a" }).Guarded());
        await Assert.ThrowsAnyAsync<ImageException>(
            () => platform.Instances.CreateAsync(request with { Name = "bad", Image = GuestImage.FromBytes("bad", "no image"u8.ToArray()) }).Guarded());
        await platform.Templates.ConvertAsync("a").Guarded();
        await platform.Instances.CreateAsync(new CreateInstanceRequest { Name = "b", Template = "a", Autostart = false }).Guarded();
        await platform.DisposeAsync().Guarded();

        Assert.Equal(
            [
                "a 1 - stopped -",
                "a 2 stopped starting -",
                "a 3 starting running -",
                "a 4 running stopping F-P--",
                "a 5 stopping stopped F-P--",
                "a 6 stopped gone F-P--",
                "b 1 - stopped -",
                "b 2 stopped gone -",
            ],
            (await CollectAsync(watch).Guarded()).Select(transition => $"{transition.Name} {Line(transition)}"));
        Assert.Throws<ObjectDisposedException>(() => platform.Instances.WatchAllAsync());
    }

    [ContractFact]
    public async Task Watching_is_cancelled_and_waits_for_what_comes()
    {
        await CreateCounterAsync("it");
        using CancellationTokenSource cancellation = new();
        await using IAsyncEnumerator<InstanceTransition> reader = Instances.WatchAsync("it").GetAsyncEnumerator(cancellation.Token);
        Task<bool> next = reader.MoveNextAsync().AsTask();
        Assert.False(next.IsCompleted);
        await Instances.StopAsync("it").Guarded();
        Assert.True(await next.Guarded());
        Assert.Equal(InstanceState.Stopping, reader.Current.To);
        Assert.True(await reader.MoveNextAsync().Guarded());

        next = reader.MoveNextAsync().AsTask();
        await cancellation.CancelAsync();

        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => next.Guarded());
        await using IAsyncEnumerator<InstanceTransition> cancelled = Instances.WatchAllAsync(Cancelled).GetAsyncEnumerator();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => cancelled.MoveNextAsync().Guarded());
    }

    [ContractFact]
    public async Task Transitions_of_concurrent_operations_have_no_gap_and_one_order()
    {
        await using IUnikraftPlatform platform = Build();
        Task<InstanceTransition[]> watch = CollectAsync(platform.Instances.WatchAllAsync());
        string[] names = ["a", "b", "c"];
        Dictionary<string, Task<InstanceTransition[]>> single = new(StringComparer.Ordinal);
        foreach (string name in names)
        {
            await platform.Instances.CreateAsync(Request("counter", "--period-ms", "0") with { Name = name, Autostart = false }).Guarded();
            single.Add(name, CollectAsync(platform.Instances.WatchAsync(name)));
        }

        await Task.WhenAll(Enumerable.Range(0, 16).Select(caller => Task.Run(async () =>
        {
            string name = names[caller % names.Length];
            for (int i = 0; i < 4; i++)
            {
                await Record.ExceptionAsync(() => platform.Instances.StartAsync(name).Guarded());
                await platform.Instances.StopAsync(name, new StopRequest { Force = caller % 2 == 0 }).Guarded();
            }
        }))).Guarded();
        await platform.DisposeAsync().Guarded();

        InstanceTransition[] all = await watch.Guarded();
        foreach (string name in names)
        {
            InstanceTransition[] own = [.. all.Where(transition => string.Equals(transition.Name, name, StringComparison.Ordinal))];
            Assert.Equal(Enumerable.Range(1, own.Length).Select(number => (long)number), own.Select(transition => transition.Number));
            Assert.All(own.Zip(own.Skip(1)), pair => Assert.Equal(pair.First.To, pair.Second.From));
            Assert.Null(own[^1].To);
            Assert.Equal(own[1..], await single[name].Guarded());
        }
    }

    private static async Task<InstanceTransition[]> CollectAsync(IAsyncEnumerable<InstanceTransition> watch)
    {
        List<InstanceTransition> collected = [];
        await foreach (InstanceTransition transition in watch)
        {
            collected.Add(transition);
        }

        return [.. collected];
    }

    private static string Line(InstanceTransition transition) => string.Create(
        CultureInfo.InvariantCulture,
        $"{transition.Number} {transition.From?.ToText() ?? "-"} {transition.To?.ToText() ?? "gone"} {transition.StopReason?.ToMask() ?? "-"}");
}
