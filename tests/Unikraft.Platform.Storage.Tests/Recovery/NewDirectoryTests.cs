using Unikraft.Platform.Storage.Tests.Testing;

namespace Unikraft.Platform.Storage.Tests.Recovery;

/// <summary>A data directory in folders that are as new as it is: each name on the way to it is on the disk before anything in it is acknowledged.</summary>
public sealed class NewDirectoryTests
{
    private const string Root = "/srv/new/platform/data";
    private const int Outcomes = 16;

    [Theory]
    [InlineData(Durability.Synced)]
    [InlineData(Durability.HostManaged)]
    public async Task A_power_cut_loses_none_of_the_folders_that_were_made_for_a_data_directory(Durability durability)
    {
        DurablePlatform before = new(options: Configure);
        await before.CreateCounterAsync("one");
        SimulatedDisk[] left = [.. Enumerable.Range(0, Outcomes).Select(seed => before.Disk.AfterPowerCut(new Random(seed)))];
        await before.DisposeAsync();
        foreach (SimulatedDisk disk in left)
        {
            Assert.NotNull(disk.Stat(Root));
            await using DurablePlatform after = new(disk, Configure);
            if (durability == Durability.Synced)
            {
                Assert.Equal("one", Assert.Single(after.Instances.List()).Name);
            }
        }

        void Configure(PlatformOptions options) => (options.DataDirectory, options.Durability) = (Root, durability);
    }

    /// <summary>One that is left half-made by a process that ended is made to its end by the next.</summary>
    [Theory]
    [InlineData("")]
    [InlineData("/")]
    public void Every_level_is_synced_from_above_wherever_making_it_ended(string end)
    {
        for (int call = 0; ; call++)
        {
            int at = call;
            SimulatedDisk disk = new() { Faults = (_, number) => number == at ? new Fault.PowerCut() : null };
            bool isEnded = Record.Exception(() => Files(disk).MakeDirectory("")) is PowerCutException;
            for (int seed = 0; seed < Outcomes; seed++)
            {
                SimulatedDisk left = disk.AfterPowerCut(new Random(seed));
                if (isEnded)
                {
                    Files(left).MakeDirectory("");
                    left = left.AfterPowerCut(new Random(seed));
                }

                Assert.NotNull(left.Stat(Root));
            }

            if (!isEnded)
            {
                Assert.InRange(call, 8, int.MaxValue);
                break;
            }
        }

        DataFiles Files(SimulatedDisk disk) => new(disk, Root + end, isSynced: true);
    }
}
