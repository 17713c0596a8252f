using System.Globalization;
using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Contracts;

public abstract partial class PlatformContract
{
    [ContractFact]
    public async Task A_guest_forks_itself_and_both_sides_go_on_by_themselves()
    {
        Instance parent = await CreateCounterAsync("parent");
        await using ConsoleSession console = Attach("parent");
        CounterTick first = await console.TickAsync();
        await console.WriteLineAsync("mark shared");
        Assert.Equal("shared", await console.ShowAsync());

        Instance child = await ForkAsync(console);

        Assert.Equal(new InstanceOrigin(InstanceOriginKind.Branch, parent.Uuid, "parent"), child.Origin);
        Assert.Equal((InstanceState.Running, RestartPolicy.Never), (child.State, child.RestartPolicy));
        AssertGeneratedFrom("parent", child.Name);
        Assert.Equal(parent.Args, child.Args);
        await using ConsoleSession childConsole = Attach(child.Uuid, fromStart: true);
        string line = (await childConsole.ReadLineAsync())!;
        CounterTick forked = await childConsole.TickAsync();
        Assert.Equal($"fork child uuid={child.Uuid} gen={forked.Generation}", line);
        Assert.Equal((first.Nonce, 2), (forked.Nonce, forked.Tick));
        Assert.NotEqual(first.Generation, forked.Generation);
        Assert.Equal("shared", await childConsole.ShowAsync());

        await childConsole.WriteLineAsync("mark of the child");
        await console.WriteLineAsync("mark of the parent");
        Assert.Equal("of the child", await childConsole.ShowAsync());
        Assert.Equal("of the parent", await console.ShowAsync());
        Assert.Equal(first with { Tick = 2 }, await console.TickAsync());
        Assert.DoesNotContain("fork child", Instances.ReadLog("parent").Text, StringComparison.Ordinal);
        await Instances.DeleteAsync("parent").Guarded();
        Assert.Equal(3, (await childConsole.TickAsync()).Tick);
    }

    [ContractFact]
    public async Task Forks_fork()
    {
        Instance instance = await CreateCounterAsync("gen-0");
        CounterTick first = await TickAsync(instance.Uuid);
        HashSet<string> generations = new(StringComparer.Ordinal) { first.Generation };
        for (int depth = 1; depth <= 4; depth++)
        {
            await using ConsoleSession console = Attach(instance.Uuid);
            Instance child = await ForkAsync(console);
            Assert.Equal(instance.Uuid, child.Origin?.Uuid);
            CounterTick tick = await TickAsync(child.Uuid);
            Assert.Equal((first.Nonce, depth + 1), (tick.Nonce, tick.Tick));
            Assert.True(generations.Add(tick.Generation));
            instance = child;
        }

        Assert.Equal(5, Instances.List().Count);
    }

    [ContractFact]
    public async Task One_guest_forks_again_and_again()
    {
        await CreateCounterAsync("parent");
        await using ConsoleSession console = Attach("parent");
        for (int i = 1; i <= 4; i++)
        {
            int tick = (await console.TickAsync()).Tick;
            Instance child = await ForkAsync(console);
            Assert.Equal((i, i + 1), (tick, (await TickAsync(child.Uuid)).Tick));
        }

        Assert.Equal(5, Instances.List().Count);
    }

    [ContractFact]
    public async Task A_fork_becomes_a_template_and_a_clone_of_a_template_forks()
    {
        await CreateCounterAsync("parent");
        CounterTick first = await TickAsync("parent");
        await using ConsoleSession console = Attach("parent");
        Instance child = await ForkAsync(console);
        await ConvertAsync(child.Uuid, fromInside: true);
        Instance clone = await CloneAsync(child.Uuid);
        await using ConsoleSession cloneConsole = Attach(clone.Uuid);
        Instance grandchild = await ForkAsync(cloneConsole);

        CounterTick tick = await TickAsync(grandchild.Uuid);

        Assert.Equal((first.Nonce, 2), (tick.Nonce, tick.Tick));
        Assert.Equal(clone.Uuid, grandchild.Origin?.Uuid);
    }

    [ContractFact]
    public async Task What_a_guest_is_told_before_it_forks_both_sides_do()
    {
        await CreateCounterAsync("parent");
        await using ConsoleSession console = Attach("parent");
        await console.WriteLineAsync("fork\nfork");
        Guid[] children = [await ReadForkAsync(console), await ReadForkAsync(console)];
        await using ConsoleSession first = Attach(children[0], fromStart: true);
        Assert.StartsWith($"fork child uuid={children[0]} ", await first.ReadLineAsync(), StringComparison.Ordinal);
        Guid grandchild = await ReadForkAsync(first);

        Assert.Equal(4, Instances.List().Count);
        Assert.Equal(4, new HashSet<Guid>([.. children, grandchild, Instances.Get("parent").Uuid]).Count);
        Assert.Equal(children[0], Instances.Get(grandchild).Origin?.Uuid);
    }

    private async Task<Instance> ForkAsync(ConsoleSession parent)
    {
        await parent.WriteLineAsync("fork");
        return Instances.Get(await ReadForkAsync(parent));
    }

    private static async Task<Guid> ReadForkAsync(ConsoleSession parent)
    {
        const string Prefix = "fork parent child=";
        string line = await parent.ReadLineAsync("fork ");
        Assert.StartsWith(Prefix, line, StringComparison.Ordinal);
        return Guid.Parse(line[Prefix.Length..], CultureInfo.InvariantCulture);
    }
}
