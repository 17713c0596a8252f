using Unikraft.Platform.Contracts;
using Unikraft.Platform.Storage.Tests.Testing;

namespace Unikraft.Platform.Storage.Tests.Recovery;

/// <summary>Services and annotations of instances after the process was killed.</summary>
public sealed class ServiceRecoveryTests
{
    private static readonly InstanceService Https = new() { Port = 443, DestinationPort = 8080, Handlers = ServiceHandlers.Tls | ServiceHandlers.Http };
    private static readonly InstanceService Database = new() { Port = 5432, DestinationPort = 5432, Handlers = ServiceHandlers.Tls };

    [Fact]
    public async Task An_instance_has_its_services_again()
    {
        await using DurablePlatform before = new();
        CreateInstanceRequest request = DurablePlatform.Request("counter", "--period-ms", "0") with { Services = [Https, Database] };
        await before.Instances.CreateAsync(request with { Name = "running", WaitTimeout = Timeout.InfiniteTimeSpan }).Guarded();
        await before.Instances.CreateAsync(request with { Name = "patched", Autostart = false }).Guarded();
        await before.Instances.PatchAsync("patched", [new PatchOperation.SetServices(Database)]).Guarded();
        await before.Instances.CreateAsync(new CreateInstanceRequest { Name = "branch", BranchFrom = "running", Services = [Https] }).Guarded();
        await using DurablePlatform after = before.Kill();

        Assert.Equal([Https, Database], after.Instances.Get("running").Services);
        Assert.Equal([Database], after.Instances.Get("patched").Services);
        Assert.Equal([Https], after.Instances.Get("branch").Services);
    }

    [Fact]
    public async Task An_instance_and_its_checkpoint_have_their_annotations_again()
    {
        Dictionary<string, string> noted = new(StringComparer.Ordinal) { ["example.com/team"] = "blue" };
        await using DurablePlatform before = new();
        await before.Instances.CreateAsync(DurablePlatform.Request("counter", "--period-ms", "0") with { Name = "it", Annotations = noted, Autostart = false }).Guarded();
        await before.CheckpointAsync("it", "point");
        await before.Instances.PatchAsync("it", [new PatchOperation.SetAnnotations(new Dictionary<string, string>(StringComparer.Ordinal) { ["other"] = "" })]).Guarded();
        await using DurablePlatform after = before.Kill();

        Assert.Equal("", Assert.Single(after.Instances.Get("it").Annotations, entry => string.Equals(entry.Key, "other", StringComparison.Ordinal)).Value);
        Assert.Equal(noted, after.Checkpoints.Get("point").Annotations);
    }
}
