using System.Globalization;
using Unikraft.Platform.Contracts.Modeling;
using Unikraft.Platform.InMemory;
using Unikraft.Platform.Storage.Tests.Testing;
using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Storage.Tests.Recovery;

/// <summary>The scripts of the model on a host that is ended and killed in between.</summary>
public sealed class ModelTests : IDisposable
{
    /// <summary>The environment variable with the number of scripts. CI sets it.</summary>
    private const string Variable = "UNIKRAFT_RESTART_SCRIPTS";

    private const string SharedMemory = "/dev/shm";
    private const int Commands = 50;
    private const int DefaultScripts = 100;

    // Those with volumes have files, which take time.
    private const int ScriptsForOneWithVolumes = 5;

    // In memory where that can be: what a power cut leaves of volumes is for other tests.
    private readonly string _folder = Directory.CreateDirectory(Path.Combine(
        Directory.Exists(SharedMemory) ? SharedMemory : Path.GetTempPath(),
        $"unikraft-model-{Guid.NewGuid():N}")).FullName;

    private int _hosts;

    public void Dispose()
    {
        IReadOnlyList<string> problems = LeftImages.FindProblems(_folder);
        Directory.Delete(_folder, recursive: true);
        Assert.Empty(problems);
    }

    [Fact]
    public Task The_platform_does_what_the_model_does_on_hosts_that_are_restarted() => CheckAsync(ModelScope.Restarts, Scripts);

    [Fact]
    public Task The_platform_does_what_the_model_does_on_hosts_that_are_restarted_with_volumes() =>
        CheckAsync(ModelScope.VolumesAndRestarts, Scripts / ScriptsForOneWithVolumes);

    private static int Scripts => int.Parse(Environment.GetEnvironmentVariable(Variable) ?? $"{DefaultScripts}", CultureInfo.InvariantCulture);

    private Task CheckAsync(ModelScope scope, int scripts) => Parallel.ForEachAsync(
        Enumerable.Range(1, scripts),
        new ParallelOptions { MaxDegreeOfParallelism = Environment.ProcessorCount * 2 },
        async (seed, _) => await ModelScripts.CheckAsync(ModelCommand.Generate((ulong)seed, Commands, scope), RunAsync));

    private async Task<ModelFailure?> RunAsync(IReadOnlyList<ModelCommand> script, bool isRetry)
    {
        InMemoryHypervisorOptions backend = new();
        ManualTimeProvider time = new();
        DurablePlatform? last = null;
        List<string> folders = [];
        string NewFolder()
        {
            folders.Add(Path.Combine(_folder, $"host{Interlocked.Increment(ref _hosts)}"));
            return folders[^1];
        }

        ModelHost Begin(SimulatedDisk disk, string volumes)
        {
            DurablePlatform begun = last = new DurablePlatform(
                disk,
                options => (options.Quotas, options.MaxDrainTimeout, options.VolumeDirectory) =
                    (new PlatformQuotas { Instances = ModelHost.Quota }, ModelHost.MaxDrainTimeout, volumes),
                backend,
                time);
            return new ModelHost(begun.Platform, static name => DurablePlatform.Request(name).Image!, time, backend)
            {
                Restart = async isKilled =>
                {
                    if (!isKilled)
                    {
                        await begun.DisposeAsync();
                        return Begin(begun.Disk.AfterKill(), volumes);
                    }

                    // Nothing of what an orderly end does is there after a kill. The volumes first: what is known of instances may be newer, as after a kill.
                    string found = NewFolder();
                    await begun.Platform.WhenVolumesIdleAsync();
                    KilledFolder.Copy(volumes, found);
                    SimulatedDisk killed = begun.Disk.AfterKill();
                    await begun.DisposeAsync();
                    return Begin(killed, found);
                },
            };
        }

        ModelRun run = new(Begin(new SimulatedDisk(), NewFolder()), isRetry ? TimeSpan.FromMilliseconds(300) : null);
        try
        {
            await run.RunAsync(script);
            return null;
        }
        catch (Exception error)
        {
            return new ModelFailure(run.History, error);
        }
        finally
        {
            await last!.DisposeAsync();
            folders.ForEach(static folder => Directory.Delete(folder, recursive: true));
        }
    }
}
