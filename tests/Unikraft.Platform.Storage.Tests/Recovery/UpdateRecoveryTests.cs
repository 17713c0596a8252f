using Unikraft.Platform.Contracts;
using Unikraft.Platform.Storage.Tests.Testing;
using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Storage.Tests.Recovery;

/// <summary>Changes of what an instance boots with that had not taken effect when the process was killed.</summary>
public sealed class UpdateRecoveryTests
{
    private static readonly Dictionary<string, string> Env = new(StringComparer.Ordinal) { ["K"] = "v", ["L"] = "w" };

    [Fact]
    public async Task Changes_that_wait_for_a_boot_wait_for_it_after_a_restart_of_the_host_as_well()
    {
        await using DurablePlatform before = new();
        await before.CreateCounterAsync("source");
        CounterTick first = await before.TickAsync("source");
        await before.Instances.CreateAsync(new CreateInstanceRequest { Name = "branch", BranchFrom = "source", Autostart = false }).Guarded();
        await before.Instances.PatchAsync(
            "branch",
            [
                new PatchOperation.SetArgs("counter", "--period-ms", "0"),
                new PatchOperation.AddArgs("--random", "--touch"),
                new PatchOperation.DelArgs("counter", "--touch"),
                new PatchOperation.SetEnv(Env),
                new PatchOperation.AddEnv(new Dictionary<string, string>(StringComparer.Ordinal) { ["M"] = "x" }),
                new PatchOperation.DelEnv("L"),
                new PatchOperation.SetMemoryMb(96),
                new PatchOperation.SetVcpus(2),
                new PatchOperation.SetImage(DurablePlatform.Request("counter").Image!),
            ]).Guarded();
        Instance waiting = before.Instances.Get("branch");
        Assert.Equal((9, 128), (waiting.Updates.Count, waiting.MemoryMb));
        await using DurablePlatform after = before.Kill();

        Instance found = after.Instances.Get("branch");
        Assert.Equal(waiting.Updates.Select(update => update.GetType()), found.Updates.Select(update => update.GetType()));
        Assert.Equal((waiting.MemoryMb, waiting.Vcpus), (found.MemoryMb, found.Vcpus));
        await after.Instances.StartAsync("branch").Guarded();
        Assert.Equal(first.Nonce, (await after.TickAsync("branch")).Nonce);
        Instance stopped = await after.Instances.StopAsync("branch").Guarded();
        Assert.Empty(stopped.Updates);
        Assert.Equal((96, 2, waiting.Image), (stopped.MemoryMb, stopped.Vcpus, stopped.Image));
        Assert.Equal(["--period-ms", "0", "--random"], stopped.Args);
        Assert.Equal(["K=v", "M=x"], stopped.Env.Select(entry => $"{entry.Key}={entry.Value}").Order(StringComparer.Ordinal));
    }

    [Fact]
    public async Task Changes_that_waited_for_the_end_of_a_run_are_in_effect_when_the_host_has_ended_it()
    {
        await using DurablePlatform before = new();
        await before.CreateCounterAsync("one");
        await before.Instances.PatchAsync("one", [new PatchOperation.SetMemoryMb(96)]).Guarded();
        Assert.Single(before.Instances.Get("one").Updates);
        await using DurablePlatform after = before.Kill();

        Instance found = after.Instances.Get("one");
        Assert.Equal((96, 0), (found.MemoryMb, found.Updates.Count));
    }
}
