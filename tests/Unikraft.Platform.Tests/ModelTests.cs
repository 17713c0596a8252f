using System.Globalization;
using Unikraft.Platform.Contracts.Modeling;
using Unikraft.Platform.InMemory;
using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Tests;

/// <summary>Random scripts of all operations, under virtual time, with crashes, cancellations and a failing backend, against an independent model.</summary>
public sealed class ModelTests
{
    /// <summary>The environment variable with the number of scripts. CI sets it to 20,000.</summary>
    private const string Variable = "UNIKRAFT_MODEL_SCRIPTS";

    private const string SharedMemory = "/dev/shm";
    private const int Commands = 50;
    private const int DefaultScripts = 300;

    [Fact]
    public async Task The_platform_does_what_the_model_does()
    {
        int scripts = int.Parse(Environment.GetEnvironmentVariable(Variable) ?? $"{DefaultScripts}", CultureInfo.InvariantCulture);
        await Parallel.ForEachAsync(
            Enumerable.Range(1, scripts),
            new ParallelOptions { MaxDegreeOfParallelism = Environment.ProcessorCount * 2 },
            async (seed, _) =>
            {
                // Volumes are files, which take time.
                ModelScope scope = seed % 8 == 0 ? ModelScope.Volumes : ModelScope.Instances;
                IReadOnlyList<ModelCommand> script = ModelCommand.Generate((ulong)seed, Commands, scope);
                await ModelScripts.CheckAsync(script, (commands, isRetry) => RunAsync(commands, isRetry, scope, LicenseOf(seed)));
            });
    }

    // One script in five has a licence, most of which end before the script does.
    private static PlatformLicense? LicenseOf(int seed) => seed % 5 == 0
        ? new PlatformLicense(Branching: seed % 3 > 0, Checkpointing: seed % 7 > 0, seed % 2 == 0 ? new ManualTimeProvider().GetUtcNow().AddSeconds(seed % 400) : null)
        : null;

    [Fact]
    public async Task A_model_that_is_wrong_is_found_and_the_script_that_shows_it_is_short()
    {
        ModelMismatchException mismatch = await Assert.ThrowsAsync<ModelMismatchException>(() => ModelScripts.CheckAsync(
            ModelCommand.Generate(seed: 1, length: 200),
            (commands, isRetry) => RunAsync(commands, isRetry: true, ModelScope.Instances, license: null, static branch => branch.Starts++)));

        // Something to branch, and the branch.
        Assert.Equal(2, mismatch.Script.Count);
        Assert.Equal(ModelOperation.Branch, mismatch.Script[1].Operation);
        Assert.Contains("branch n1 to n2", mismatch.Message, StringComparison.Ordinal);
    }

    private static async Task<ModelFailure?> RunAsync(
        IReadOnlyList<ModelCommand> script,
        bool isRetry,
        ModelScope scope,
        PlatformLicense? license,
        Action<ModelInstance>? mistake = null)
    {
        // In memory where that can be: what a power cut leaves of them is for other tests.
        using JudgedFolder? volumes = scope == ModelScope.Volumes ? new JudgedFolder(Directory.Exists(SharedMemory) ? SharedMemory : null) : null;
        return await RunAsync(script, isRetry, volumes?.Path, license, mistake);
    }

    private static async Task<ModelFailure?> RunAsync(
        IReadOnlyList<ModelCommand> script,
        bool isRetry,
        string? volumes,
        PlatformLicense? license,
        Action<ModelInstance>? mistake)
    {
        InMemoryHypervisorOptions? backend = null;
        await using TestPlatform test = new(
            options => backend = options,
            options =>
            {
                options.Quotas = new PlatformQuotas { Instances = ModelHost.Quota };
                options.MaxDrainTimeout = ModelHost.MaxDrainTimeout;
                options.License = license;
                options.VolumeDirectory = volumes;
            });
        ModelRun run = new(
            new ModelHost(test.Platform, TestPlatform.Image, test.Time, backend) { License = license },
            isRetry ? TimeSpan.FromMilliseconds(300) : null)
        {
            Mistake = mistake,
        };
        try
        {
            await run.RunAsync(script);
            return null;
        }
        catch (Exception error)
        {
            return new ModelFailure(run.History, error);
        }
    }
}
