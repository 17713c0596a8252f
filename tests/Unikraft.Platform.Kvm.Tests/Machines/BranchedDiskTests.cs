using System.Globalization;
using Unikraft.Platform.Kvm.Machines;
using Unikraft.Platform.Kvm.Tests.Testing;
using Unikraft.Platform.TestKit;
using ConsoleSession = Unikraft.Platform.Contracts.ConsoleSession;

namespace Unikraft.Platform.Kvm.Tests.Machines;

/// <summary>Branches of a guest that never stops writing to its volume: both sides have all that was acknowledged, and go on.</summary>
[RequiresKvm]
public sealed class BranchedDiskTests : IAsyncLifetime
{
    private const string Acknowledged = "ack ";

    private readonly JudgedFolder _folder = new();
    private IUnikraftPlatform _platform = null!;
    private Func<ValueTask> _beforeCut = static () => ValueTask.CompletedTask;

    /// <summary>How many branches the proof makes; a thorough run sets it to thousands.</summary>
    private static int Branches =>
        int.TryParse(Environment.GetEnvironmentVariable("UNIKRAFT_VOLUME_BRANCHES"), CultureInfo.InvariantCulture, out int count) ? count : 20;

    public Task InitializeAsync()
    {
        _platform = new UnikraftPlatformBuilder()
            .Configure(options => options.VolumeDirectory = _folder.Path)
            .UseHypervisor(context => new HeldCaptures(new KvmHypervisor(new KvmOptions(), context), () => _beforeCut()))
            .Build();
        return Task.CompletedTask;
    }

    public async Task DisposeAsync()
    {
        await _platform.DisposeAsync();
        _folder.Dispose();
    }

    [ContractFact]
    public async Task What_was_acknowledged_at_a_cut_is_in_both_lineages_and_their_journals_check()
    {
        const int SourceChecks = 8;
        Instance source = await _platform.Instances.CreateAsync(new CreateInstanceRequest
        {
            Image = GuestImages.Get("kv"),
            Args = ["--load", "32"],
            MemoryMb = 16,
            Volumes = [new InstanceVolume { SizeMb = 16, At = "/data" }],
            WaitTimeout = Timeout.InfiniteTimeSpan,
        }).Guarded();
        await using ConsoleSession console = new(_platform.Instances.AttachConsole(source.Uuid));
        for (int round = 0; round < Branches; round++)
        {
            long before = await ReadAcknowledgedAsync(console);
            Instance branch = await _platform.Instances.CreateAsync(new CreateInstanceRequest { BranchFrom = source.Uuid, WaitTimeout = Timeout.InfiniteTimeSpan }).Guarded();
            await using (ConsoleSession side = new(_platform.Instances.AttachConsole(branch.Uuid)))
            {
                // It goes on with what was under way, and that once: its driver stops it when a request is done that was not asked for.
                Assert.InRange(await ReadAcknowledgedAsync(side), before + 1, long.MaxValue);
                Assert.InRange(await CheckAsync(side), before + 1, long.MaxValue);
            }

            if (round % SourceChecks == 0)
            {
                Assert.InRange(await CheckAsync(console), before, long.MaxValue);
                await console.WriteLineAsync("load 0 32");
            }

            await _platform.Instances.DeleteAsync(branch.Uuid).Guarded();
        }

        Assert.InRange(await CheckAsync(console), 1, long.MaxValue);
        Assert.Null(Assert.Single(_platform.Volumes.List()).Error);
    }

    /// <summary>
    /// The guest writes numbers to four volumes, to each when the one before has acknowledged them. So at no instant is one of them ahead of the one before, nor the
    /// first one ahead of the last by more than what is under way: somebody who boots with what was cut, and knows nothing of it, looks whether that holds.
    /// </summary>
    /// <remarks>
    /// With one request at a time, of which none is a flush, the guest writes a good deal more last before it stands still, when all is prepared: a volume that was cut until then lags
    /// far behind the others.
    /// </remarks>
    [ContractTheory]
    [InlineData(16, 0)]
    [InlineData(1, 2)]
    public async Task Volumes_that_are_written_one_after_the_other_are_cut_at_the_same_instant(int depth, int linesBeforeCut)
    {
        const int Rounds = 6;
        string command = string.Create(CultureInfo.InvariantCulture, $"lockstep seq 4096 {depth}");
        string[] paths = ["/a", "/b", "/c", "/d"];
        Instance source = await StartAsync([.. paths.Select(path => new InstanceVolume { SizeMb = 8, At = path })]);
        await using ConsoleSession console = new(_platform.Instances.AttachConsole(source.Uuid));
        await console.WriteLineAsync($"{command} 0");
        int held = 0;
        _beforeCut = async () =>
        {
            // What it says from now on: between two lines it has been through all volumes many times.
            await using ConsoleSession watching = new(_platform.Instances.AttachConsole(source.Uuid));
            for (int line = 0; line < linesBeforeCut; line++)
            {
                await ReadNumberAsync(watching, "step ");
            }

            held++;
        };
        for (int round = 0; round < Rounds; round++)
        {
            long before = await ReadNumberAsync(console, "step ");
            bool isBranch = round % 2 == 0;
            Checkpoint? checkpoint = null;
            Instance other;
            if (isBranch)
            {
                other = await _platform.Instances.CreateAsync(new CreateInstanceRequest { BranchFrom = source.Uuid, Autostart = false }).Guarded();
            }
            else
            {
                checkpoint = await _platform.Checkpoints.CreateAsync(new CreateCheckpointRequest { From = source.Uuid, WaitTimeout = Timeout.InfiniteTimeSpan }).Guarded();
                other = await _platform.Instances.CreateAsync(new CreateInstanceRequest { Checkpoint = checkpoint.Uuid, Autostart = false }).Guarded();
            }

            AttachedVolume[] cut = [.. (isBranch ? other.Volumes : checkpoint!.Volumes)];
            Assert.Equal(paths, cut.Select(static volume => volume.At));
            List<InstanceVolume> copies = [];
            foreach (AttachedVolume volume in cut)
            {
                Volume copy = isBranch
                    ? await _platform.Volumes.CloneAsync(volume.Uuid, new CloneVolumeRequest()).Guarded()
                    : await _platform.Volumes.CreateAsync(new CreateVolumeRequest { Template = volume.Uuid }).Guarded();
                copies.Add(new InstanceVolume { Volume = copy.Uuid, At = volume.At });
            }

            Assert.InRange(await CheckStepsAsync(copies, command), before, long.MaxValue);

            // What was under way is done once in each lineage: both know to the number what is on their disks.
            await _platform.Instances.StartAsync(other.Uuid).Guarded();
            await using (ConsoleSession side = new(_platform.Instances.AttachConsole(other.Uuid)))
            {
                Assert.InRange(await ReadNumberAsync(side, "step "), before, long.MaxValue);
                await side.WriteLineAsync("");
                Assert.InRange(await ReadNumberAsync(side, "lockstep "), before, long.MaxValue);
            }

            await console.WriteLineAsync("");
            Assert.InRange(await ReadNumberAsync(console, "lockstep "), before, long.MaxValue);
            await console.WriteLineAsync($"{command} 0");
            await _platform.Instances.DeleteAsync(other.Uuid).Guarded();
        }

        Assert.Equal(Rounds, held);
    }

    private async Task<long> CheckStepsAsync(List<InstanceVolume> volumes, string command)
    {
        Instance reader = await StartAsync(volumes);
        await using ConsoleSession console = new(_platform.Instances.AttachConsole(reader.Uuid));
        await console.WriteLineAsync($"{command} 1");
        string answer = await console.ReadLineAsync("lockstep ");
        Assert.StartsWith("lockstep holds disks=4 least=", answer, StringComparison.Ordinal);
        await _platform.Instances.DeleteAsync(reader.Uuid).Guarded();
        return long.Parse(answer[(answer.LastIndexOf('=') + 1)..], CultureInfo.InvariantCulture);
    }

    private async Task<Instance> StartAsync(IReadOnlyList<InstanceVolume> volumes) => await _platform.Instances.CreateAsync(new CreateInstanceRequest
    {
        Image = GuestImages.Get("blockio"),
        MemoryMb = 32,
        Volumes = volumes,
        WaitTimeout = Timeout.InfiniteTimeSpan,
    }).Guarded();

    /// <summary>The number at the end of the next line that begins like that.</summary>
    private static async Task<long> ReadNumberAsync(ConsoleSession console, string beginning)
    {
        string line = await console.ReadLineAsync(beginning);
        Assert.DoesNotContain("failed", line, StringComparison.Ordinal);
        Assert.DoesNotContain("error", line, StringComparison.Ordinal);
        return long.Parse(line[(line.LastIndexOf(' ') + 1)..], CultureInfo.InvariantCulture);
    }

    private static async Task<long> ReadAcknowledgedAsync(ConsoleSession console) =>
        long.Parse((await console.ReadLineAsync(Acknowledged))[Acknowledged.Length..], CultureInfo.InvariantCulture);

    /// <summary>Ends the load, and has the guest check its journal.</summary>
    /// <returns>The number of the last record.</returns>
    private static async Task<long> CheckAsync(ConsoleSession console)
    {
        await console.WriteLineAsync("check");
        string answer = await console.ReadLineAsync("check");
        Assert.StartsWith("check ok", answer, StringComparison.Ordinal);
        return long.Parse(answer[(answer.LastIndexOf('=') + 1)..], CultureInfo.InvariantCulture);
    }
}
