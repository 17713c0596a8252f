using Unikraft.Platform.Contracts.Modeling;
using Unikraft.Platform.Kvm.Machines;
using Unikraft.Platform.Kvm.Tests.Testing;
using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Kvm.Tests.Contracts;

/// <summary>
/// The scripts of the model with real guests. The clock of the platform is virtual, that of their machines is the host's; whether a cancellation comes in time is a race.
/// </summary>
[RequiresKvm]
public sealed class KvmModelTests
{
    private const int Commands = 40;

    /// <summary>Seeds.</summary>
    public static TheoryData<int> Seeds => [.. Enumerable.Range(1, 6)];

    [ContractTheory]
    [MemberData(nameof(Seeds))]
    public Task The_platform_does_with_real_guests_what_the_model_does(int seed) =>
        ModelScripts.CheckAsync(ModelCommand.Generate((ulong)seed, Commands, seed % 3 == 0 ? ModelScope.Volumes : ModelScope.Instances), RunAsync);

    [ContractFact]
    public async Task The_platform_does_with_real_guests_what_the_model_does_in_many_more_scripts()
    {
        for (int seed = 7; seed < 7 + Repetitions.Of(94); seed++)
        {
            await The_platform_does_with_real_guests_what_the_model_does(seed);
        }
    }

    private static async Task<ModelFailure?> RunAsync(IReadOnlyList<ModelCommand> script, bool isRetry)
    {
        using JudgedFolder volumes = new();
        ManualTimeProvider time = new();
        await using IUnikraftPlatform platform = new UnikraftPlatformBuilder()
            .Configure(options =>
            {
                options.Quotas = new PlatformQuotas { Instances = ModelHost.Quota };
                options.MaxDrainTimeout = ModelHost.MaxDrainTimeout;
                options.VolumeDirectory = volumes.Path;
            })
            .UseTimeProvider(time)
            .UseHypervisor(static context => new KvmHypervisor(new KvmOptions(), context with { TimeProvider = TimeProvider.System }))
            .Build();
        ModelRun run = new(new ModelHost(platform, GuestImages.Get, time), isRetry ? TimeSpan.FromSeconds(2) : null);
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
