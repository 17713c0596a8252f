using System.Globalization;
using Unikraft.Platform.Contracts.Modeling;
using Unikraft.Platform.InMemory;
using Unikraft.Platform.Storage.Tests.Testing;
using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Storage.Tests.Recovery;

/// <summary>The scripts of the model on a host that is ended and killed in between.</summary>
public sealed class ModelTests
{
    /// <summary>The environment variable with the number of scripts. CI sets it.</summary>
    private const string Variable = "UNIKRAFT_RESTART_SCRIPTS";

    private const int Commands = 50;
    private const int DefaultScripts = 100;

    [Fact]
    public async Task The_platform_does_what_the_model_does_on_hosts_that_are_restarted()
    {
        int scripts = int.Parse(Environment.GetEnvironmentVariable(Variable) ?? $"{DefaultScripts}", CultureInfo.InvariantCulture);
        await Parallel.ForEachAsync(
            Enumerable.Range(1, scripts),
            new ParallelOptions { MaxDegreeOfParallelism = Environment.ProcessorCount * 2 },
            async (seed, _) => await ModelScripts.CheckAsync(ModelCommand.Generate((ulong)seed, Commands, ModelScope.Restarts), RunAsync));
    }

    private static async Task<ModelFailure?> RunAsync(IReadOnlyList<ModelCommand> script, bool isRetry)
    {
        InMemoryHypervisorOptions backend = new();
        ManualTimeProvider time = new();
        DurablePlatform? last = null;
        ModelHost Begin(SimulatedDisk disk)
        {
            DurablePlatform begun = last = new DurablePlatform(
                disk,
                options => (options.Quotas, options.MaxDrainTimeout) = (new PlatformQuotas { Instances = ModelHost.Quota }, ModelHost.MaxDrainTimeout),
                backend,
                time);
            return new ModelHost(begun.Platform, static name => DurablePlatform.Request(name).Image!, time, backend)
            {
                Restart = async isKilled =>
                {
                    // Nothing of what an orderly end does is there after a kill.
                    SimulatedDisk killed = begun.Disk.AfterKill();
                    await begun.DisposeAsync();
                    return Begin(isKilled ? killed : begun.Disk.AfterKill());
                },
            };
        }

        ModelRun run = new(Begin(new SimulatedDisk()), isRetry ? TimeSpan.FromMilliseconds(300) : null);
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
        }
    }
}
