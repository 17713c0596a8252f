using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Kvm.Machines;
using Unikraft.Platform.Kvm.Tests.Testing;
using Unikraft.Platform.TestKit;
using ConsoleSession = Unikraft.Platform.Contracts.ConsoleSession;
using CounterTick = Unikraft.Platform.Contracts.CounterTick;

namespace Unikraft.Platform.Kvm.Tests.Machines;

/// <summary>Templates and forks on real machines, beyond what every backend must do.</summary>
public sealed class GuestRequestTests : KvmTest
{
    private const int Clones = 32;

    [ContractFact]
    public async Task Clones_of_a_template_made_from_inside_run_side_by_side_and_all_differ()
    {
        await using TestMachine source = await BootAsync("counter", "--period-ms", "0");
        CounterLine first = await source.TickAsync();
        await source.SendAsync("template");
        await source.Monitor.ReadRequestAsync();
        using IMachineSnapshot snapshot = await source.CaptureAsync();
        await source.DisposeAsync();

        TestMachine[] clones = await Task.WhenAll(Enumerable.Range(0, Clones).Select(_ => RestoreAsync(snapshot)));
        string[] generations = await Task.WhenAll(clones.Select(clone => clone.Monitor.ReadLineAsync()));
        CounterLine[] ticks = await Task.WhenAll(clones.Select(clone => clone.TickAsync()));

        Assert.All(generations, line => Assert.StartsWith("cloned gen=", line, StringComparison.Ordinal));
        Assert.Equal(Clones, generations.Distinct(StringComparer.Ordinal).Count());
        Assert.All(ticks, tick => Assert.Equal((first.Nonce, 2), (tick.Nonce, tick.Tick)));
        foreach (TestMachine clone in clones)
        {
            await clone.DisposeAsync();
        }
    }

    [ContractTheory]
    [InlineData("template", "cloned ")]
    [InlineData("fork", "fork child ")]
    public async Task All_vcpus_of_a_busy_guest_go_on_in_its_clones(string request, string line)
    {
        // The other vCPUs count without a pause while vCPU 0 is in its call.
        await using TestMachine source = await BootAsync("counter", 4, 64, "--period-ms", "0", "--smp", "--busy");
        await source.TickAsync();
        await source.SendAsync(request);
        Assert.Equal(request, await source.Monitor.ReadRequestAsync());
        using IMachineSnapshot snapshot = await source.CaptureAsync();
        source.Machine.RefuseRequest(GuestRequestRefusal.TryAgain);
        Assert.Equal($"{request} error=11", await source.Monitor.ReadLineAsync(request));

        await using TestMachine clone = await RestoreAsync(snapshot);
        await clone.Monitor.ReadLineAsync(line);
        IReadOnlyList<long> before = (await clone.TickAsync()).Cpus;
        Assert.Equal(3, before.Count);
        await AllHaveCountedAsync().Guarded();
        clone.Machine.RequestStop();
        Assert.IsType<MachineExit.PoweredOff>(await clone.Exited);

        async Task AllHaveCountedAsync()
        {
            while ((await clone.TickAsync()).Cpus.Zip(before).Any(pair => pair.First <= pair.Second))
            {
            }
        }
    }

    [ContractFact]
    public async Task A_guest_that_becomes_a_template_by_api_does_nothing_that_its_clones_do_not_know_of()
    {
        UnikraftPlatformBuilder builder = new();
        await using IUnikraftPlatform platform = builder.UseKvm().Build();
        for (int i = 0; i < 10; i++)
        {
            string name = $"base-{i}";
            await platform.Instances.CreateAsync(Request(name) with { Args = ["--period-ms", "1"] }).Guarded();
            await using ConsoleSession console = new(platform.Instances.AttachConsole(name, new ConsoleOptions { FromStart = true }));
            await console.ReadLineAsync("nonce=");
            await platform.Templates.ConvertAsync(name).Guarded();
            int last = 1;
            while (await console.ReadLineAsync() is { } line)
            {
                last = CounterTick.Parse(line).Tick;
            }

            Instance clone = await platform.Instances.CreateAsync(new CreateInstanceRequest { Template = name }).Guarded();
            await using ConsoleSession heard = new(platform.Instances.AttachConsole(clone.Uuid, new ConsoleOptions { FromStart = true }));
            Assert.Equal(last + 1, CounterTick.Parse((await heard.ReadLineAsync())!).Tick);
            await platform.Instances.DeleteAsync(clone.Uuid).Guarded();
        }
    }

    [ContractTheory]
    [InlineData("template")]
    [InlineData("fork")]
    public async Task A_request_while_a_checkpoint_is_pending_is_refused_as_busy(string request)
    {
        HeldCaptures? held = null;
        await using IUnikraftPlatform platform = new UnikraftPlatformBuilder()
            .UseHypervisor(context => held = new HeldCaptures(new KvmHypervisor(new KvmOptions(), context)))
            .Build();
        await platform.Instances.CreateAsync(Request("source")).Guarded();
        await using ConsoleSession console = new(platform.Instances.AttachConsole("source", new ConsoleOptions()));
        CounterTick first = await console.TickAsync();
        await platform.Checkpoints.CreateAsync(new CreateCheckpointRequest { From = "source", Name = "chk" }).Guarded();
        await held!.Begun;

        await console.WriteLineAsync(request);

        Assert.Equal($"{request} error=16", await console.ReadLineAsync());
        Assert.Equal(first with { Tick = 2 }, await console.TickAsync());
        held.Release();
        await platform.Checkpoints.WaitAsync("chk").Guarded();
        await console.WriteLineAsync(request);
        Assert.DoesNotContain("error", await console.ReadLineAsync() ?? "", StringComparison.Ordinal);
    }

    [ContractTheory]
    [InlineData("template", "cloned ")]
    [InlineData("fork", "fork child ")]
    public async Task A_checkpoint_that_is_taken_during_a_request_holds_a_clone(string request, string line)
    {
        await using TestMachine source = await BootAsync("counter", "--period-ms", "0");
        CounterLine first = await source.TickAsync();
        await source.SendAsync(request);
        await source.Monitor.ReadRequestAsync();
        using IMachineSnapshot snapshot = await source.CaptureAsync();
        source.Machine.RefuseRequest(GuestRequestRefusal.Busy);
        Assert.Equal($"{request} error=16", await source.Monitor.ReadLineAsync());

        Guid uuid = Guid.NewGuid();
        await using TestMachine clone = await RestoreWithoutStartAsync(snapshot, uuid);
        // The answer, which restoring has given, is part of the next snapshot.
        await clone.Machine.StartAsync();
        using IMachineSnapshot again = await clone.CaptureAsync();
        await using TestMachine second = await RestoreAsync(again);
        string heard = await clone.Monitor.ReadLineAsync();
        Assert.StartsWith(line, heard, StringComparison.Ordinal);
        Assert.Equal(string.Equals(request, "fork", StringComparison.Ordinal), heard.Contains($"{uuid}", StringComparison.Ordinal));
        CounterLine tick = await second.TickAsync();
        Assert.Equal((first.Nonce, 2), (tick.Nonce, tick.Tick));
    }

    private static CreateInstanceRequest Request(string name) => new()
    {
        Name = name,
        Image = GuestImages.Get("counter"),
        Args = ["--period-ms", "0"],
        MemoryMb = 32,
        WaitTimeout = Timeout.InfiniteTimeSpan,
    };
}
