using Unikraft.Platform.Contracts.Crashes;
using Unikraft.Platform.CrashChild;
using Unikraft.Platform.Kvm.Snapshots.Files;
using Unikraft.Platform.Kvm.Tests.Testing;
using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Kvm.Tests.Snapshots;

/// <summary>
/// Real processes with real machines that are killed while they write layers, states and the publication log, with volumes as well: what was acknowledged goes on where it was, and
/// nothing is half there. How many is set by the environment.
/// </summary>
/// <remarks>Not in the SVM lab: hundreds of processes.</remarks>
[RequiresKvm]
[Trait("Lab", "TooLong")]
public sealed class KilledPlatformTests : IDisposable
{
    private const string KillPoints = "UNIKRAFT_KVM_KILL_POINTS";
    private const string KillTimes = "UNIKRAFT_KVM_KILL_TIMES";

    private readonly Xunit.Abstractions.ITestOutputHelper _output;
    private readonly string _folder = Directory.CreateTempSubdirectory("killed-").FullName;
    private readonly CrashHarness _harness;

    public KilledPlatformTests(Xunit.Abstractions.ITestOutputHelper output)
    {
        _output = output;
        _harness = new CrashHarness(
            _folder,
            Path.Combine(AppContext.BaseDirectory, "guests"),
            static directory =>
            {
                UnikraftPlatformBuilder builder = new();
                builder.Configure(options => options.DataDirectory = directory);
                builder.UseKvm(static options => (options.WarmUp, options.ReadyMachines) = (false, 0));
                return builder.Build();
            });
    }

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [ContractFact]
    public async Task Machines_of_a_process_killed_at_a_call_to_the_disk_go_on_where_they_were()
    {
        // Names of images are taken to the disk by what this backend has for it.
        string[] places = [.. CallSites.Of(typeof(SnapshotDirectory).Assembly), "SyncDirectory@ImageDirectory.Sync"];
        await _harness.KillAtCallsAsync(CrashHarness.Count(KillPoints, otherwise: 16), places, [], _output.WriteLine);
    }

    [ContractFact]
    public Task Machines_of_a_process_killed_at_any_time_go_on_where_they_were() => _harness.KillAtAnyTimeAsync(CrashHarness.Count(KillTimes, otherwise: 4));
}
