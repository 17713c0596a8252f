using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Contracts;

public abstract partial class PlatformContract
{
    private static readonly InstanceService Https = new() { Port = 443, DestinationPort = 8080, Handlers = ServiceHandlers.Tls | ServiceHandlers.Http };
    private static readonly InstanceService Http = new() { Port = 80, DestinationPort = 8080, Handlers = ServiceHandlers.Http | ServiceHandlers.Redirect };
    private static readonly InstanceService Database = new() { Port = 5432, Handlers = ServiceHandlers.Tls };

    [ContractFact]
    public async Task An_instance_has_the_services_that_it_was_created_with_and_so_have_its_replicas()
    {
        InstanceService[] expected = [Https, Http, Database with { DestinationPort = 5432 }];
        IReadOnlyList<Instance> created = await Instances.CreateReplicasAsync(
            Request("counter", "--period-ms", "0") with { Name = "it", Services = [Https, Http, Database] },
            replicas: 1).Guarded();

        Assert.All(created, instance => Assert.Equal(expected, instance.Services));
        await Instances.StopAsync("it").Guarded();
        Assert.Equal(expected, Instances.Get("it").Services);
        Assert.Empty((await CreateCounterAsync()).Services);
    }

    [ContractFact]
    public async Task A_branch_a_load_and_a_clone_have_services_of_their_own_and_inherit_none()
    {
        await Instances.CreateAsync(Request("counter", "--period-ms", "0") with { Name = "it", Services = [Https], WaitTimeout = Timeout.InfiniteTimeSpan }).Guarded();
        await TickAsync("it");
        await CheckpointAsync("it", "point");
        CreateInstanceRequest[] requests =
        [
            new() { BranchFrom = "it", WaitTimeout = Timeout.InfiniteTimeSpan },
            new() { Checkpoint = "point", WaitTimeout = Timeout.InfiniteTimeSpan },
            new() { Template = "it", WaitTimeout = Timeout.InfiniteTimeSpan },
        ];
        foreach (CreateInstanceRequest request in requests)
        {
            if (request.Template is not null)
            {
                await Templates.ConvertAsync("it").Guarded();
            }

            Assert.Empty((await Instances.CreateAsync(request).Guarded()).Services);
            Instance made = await Instances.CreateAsync(request with { Services = [Http] }).Guarded();
            Assert.Equal([Http], made.Services);
            Assert.Equal(2, (await TickAsync(made.Uuid)).Tick);
        }
    }

    [ContractFact]
    public async Task Services_are_patched_at_once_also_of_a_running_instance()
    {
        await CreateCounterAsync("it");

        Instance patched = await Instances.PatchAsync("it", [new PatchOperation.SetServices(Database, Http)]).Guarded();
        Assert.Equal([Database with { DestinationPort = 5432 }, Http], patched.Services);
        Assert.Empty(patched.Updates);
        Assert.Empty((await Instances.PatchAsync("it", [new PatchOperation.SetServices()]).Guarded()).Services);
        await CheckpointAsync("it", "point");
        await FailsAsync<InvalidRequestException>(
            "'SetServices' is for instances only; allowed are changes of tags, delete_lock and autokill",
            () => Checkpoints.PatchAsync("point", [new PatchOperation.SetServices(Http)]).Guarded());
    }

    [ContractFact]
    public async Task Services_that_are_not_allowed_are_refused()
    {
        Instance before = await Instances.CreateAsync(Request("counter", "--period-ms", "0") with { Name = "it", Services = [Https], Autostart = false }).Guarded();
        (InstanceService[] Services, string Message)[] bad =
        [
            ([null!], "A service is null"),
            ([Database with { Port = 0 }], "The 'port' of a service is 0; allowed is 1 to 65535"),
            ([Database with { Port = 65_536 }], "The 'port' of a service is 65536; allowed is 1 to 65535"),
            ([Database with { DestinationPort = 0 }], "The 'destination_port' of the service at port 5432 is 0; allowed is 1 to 65535"),
            ([Database with { DestinationPort = 65_536 }], "The 'destination_port' of the service at port 5432 is 65536; allowed is 1 to 65535"),
            ([Database with { Handlers = (ServiceHandlers)9 }], "'9' are not handlers of a service"),
            ([Database with { Handlers = ServiceHandlers.None }], "The service at port 5432 needs the handler 'tls', and cannot have 'http': that is for the ports 80 and 443"),
            ([Database with { Handlers = Https.Handlers }], "The service at port 5432 needs the handler 'tls', and cannot have 'http': that is for the ports 80 and 443"),
            ([Http with { Handlers = ServiceHandlers.None }], "The service at port 80 needs the handler 'http', and cannot have 'tls'"),
            ([Http with { Handlers = Https.Handlers }], "The service at port 80 needs the handler 'http', and cannot have 'tls'"),
            ([Https with { Handlers = ServiceHandlers.Tls }], "The service at port 443 needs the handlers 'tls' and 'http'"),
            ([Https with { Handlers = ServiceHandlers.Http }], "The service at port 443 needs the handlers 'tls' and 'http'"),
            ([Https with { Handlers = Https.Handlers | ServiceHandlers.Redirect }], "The service at port 443 cannot have the handler 'redirect': only the one at port 80 can"),
            ([Https, Http, Https with { DestinationPort = 1 }], "'services' has port 443 more than once"),
        ];
        foreach ((InstanceService[] services, string message) in bad)
        {
            await FailsAsync<InvalidRequestException>(message, () => Instances.CreateAsync(Request("counter") with { Services = services }).Guarded());
            await FailsAsync<InvalidRequestException>(message, () => Instances.CreateAsync(new CreateInstanceRequest { BranchFrom = "it", Services = services }).Guarded());
            await FailsAsync<InvalidRequestException>(
                message,
                () => Instances.PatchAsync("it", [new PatchOperation.AddTags("tag"), new PatchOperation.SetServices(services)]).Guarded());
        }

        await FailsAsync<InvalidRequestException>(
            "A patch of 'services' has no value",
            () => Instances.PatchAsync("it", [new PatchOperation.SetServices((IReadOnlyList<InstanceService>)null!)]).Guarded());
        Assert.Equal(before, Assert.Single(Instances.List()));
    }
}
