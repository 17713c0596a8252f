using Unikraft.Platform.Contracts;

namespace Unikraft.Platform.Tests;

public sealed class QuotaTests
{
    private const string NoBranching = "Insufficient license. Please make sure your license is valid and includes branching";
    private const string NoCheckpointing = "Insufficient license. Please make sure your license is valid and includes checkpointing";

    [Fact]
    public async Task A_licence_without_a_feature_refuses_it_with_the_documented_error()
    {
        await using TestPlatform test = new(options: options => options.License = new PlatformLicense(Branching: false, Checkpointing: false));
        Instance source = await test.CreateCounterAsync();

        PlatformException branching = await Assert.ThrowsAsync<PlatformException>(() => BranchAsync(test, source));
        PlatformException checkpointing = await Assert.ThrowsAsync<PlatformException>(() => CheckpointAsync(test, source));

        Assert.Equal((NoBranching, PlatformErrorCode.InsufficientLicense), (branching.Message, branching.Code));
        Assert.Equal((NoCheckpointing, PlatformErrorCode.InsufficientLicense), (checkpointing.Message, checkpointing.Code));
        Assert.Single(test.Instances.List());
        Assert.Empty(test.Checkpoints.List());
    }

    [Fact]
    public async Task A_licence_ends_when_it_is_no_longer_valid()
    {
        await using TestPlatform test = new(options: options => options.License = new PlatformLicense(
            Branching: true,
            Checkpointing: true,
            ValidUntil: new TestKit.ManualTimeProvider().GetUtcNow() + TimeSpan.FromHours(1)));
        Instance source = await test.CreateCounterAsync();
        await BranchAsync(test, source);
        await CheckpointAsync(test, source);

        test.Time.Advance(TimeSpan.FromHours(1));

        Assert.Equal(NoBranching, (await Assert.ThrowsAsync<PlatformException>(() => BranchAsync(test, source))).Message);
        Assert.Equal(NoCheckpointing, (await Assert.ThrowsAsync<PlatformException>(() => CheckpointAsync(test, source))).Message);
    }

    [Fact]
    public async Task The_quota_of_instances_counts_templates_and_checkpoints_and_is_given_back()
    {
        await using TestPlatform test = new(options: options => options.Quotas = new PlatformQuotas { Instances = 3 });
        Instance source = await test.CreateCounterAsync();
        Checkpoint checkpoint = await CheckpointAsync(test, source);
        Instance branch = await BranchAsync(test, source);
        Template template = await test.Templates.ConvertAsync(branch.Uuid).Guarded();

        QuotaExceededException instance = await Assert.ThrowsAsync<QuotaExceededException>(() => BranchAsync(test, source));
        QuotaExceededException second = await Assert.ThrowsAsync<QuotaExceededException>(() => CheckpointAsync(test, source));

        Assert.Equal("Failed to allocate instance: quota exceeded, 'instances' has a current limit of 3", instance.Message);
        Assert.Equal("Failed to allocate checkpoint: quota exceeded, 'instances' has a current limit of 3", second.Message);
        Assert.Equal(("instances", 3L), (second.Quota, second.Limit));
        await test.Templates.DeleteAsync(template.Uuid).Guarded();
        await test.Checkpoints.DeleteAsync(checkpoint.Uuid).Guarded();
        // One too many of three: none is created, and nothing stays taken.
        await Assert.ThrowsAsync<QuotaExceededException>(
            () => test.Instances.CreateReplicasAsync(TestPlatform.Request("counter") with { Name = "it" }, replicas: 2).Guarded());
        Assert.Single(test.Instances.List());
        Assert.Equal(2, (await test.Instances.CreateReplicasAsync(TestPlatform.Request("counter") with { Name = "it" }, replicas: 1).Guarded()).Count);
    }

    [Theory]
    [InlineData(2, null, null, "live_instances", 2)]
    [InlineData(null, 3, null, "live_vcpus", 3)]
    [InlineData(null, null, 300, "live_memory_mb", 300)]
    public async Task What_is_stopped_or_in_standby_does_not_count_against_live_quotas(
        int? instances,
        int? vcpus,
        int? memoryMb,
        string quota,
        int limit)
    {
        await using TestPlatform test = new(options: options => options.Quotas = new PlatformQuotas
        {
            LiveInstances = instances,
            LiveVcpus = vcpus,
            LiveMemoryMb = memoryMb,
        });
        CreateInstanceRequest request = TestPlatform.Request("counter", "--period-ms", "0") with
        {
            Vcpus = 1,
            MemoryMb = 100,
            ScaleToZero = new ScaleToZero(Stateful: true, TimeSpan.FromHours(1)),
            WaitTimeout = Timeout.InfiniteTimeSpan,
        };
        await test.Instances.CreateAsync(request with { Name = "one" }).Guarded();
        await test.Instances.CreateAsync(request with { Name = "other", Vcpus = 2, MemoryMb = 200 }).Guarded();

        QuotaExceededException error = await Assert.ThrowsAsync<QuotaExceededException>(
            () => test.Instances.CreateAsync(request with { Name = "third" }).Guarded());
        Assert.Equal($"Cannot start instance 'third': quota exceeded, '{quota}' has a current limit of {limit}", error.Message);
        Assert.Equal((quota, (long)limit), (error.Quota, error.Limit));
        await test.Instances.CreateAsync(request with { Name = "third", Autostart = false, WaitTimeout = null }).Guarded();
        await Assert.ThrowsAsync<QuotaExceededException>(() => test.Instances.StartAsync("third").Guarded());

        await test.Instances.SuspendAsync("one").Guarded();
        await test.Instances.StartAsync("third").Guarded();
        await Assert.ThrowsAsync<QuotaExceededException>(() => test.Instances.ConnectAsync("one").Guarded());
        Assert.Equal(InstanceState.Standby, test.Instances.Get("one").State);
        await test.Instances.StopAsync("third").Guarded();
        using IInstanceConnection connection = await test.Instances.ConnectAsync("one").Guarded();
    }

    private static async Task<Instance> BranchAsync(TestPlatform test, Instance source) => await test.Instances
        .CreateAsync(new CreateInstanceRequest { BranchFrom = source.Uuid, WaitTimeout = Timeout.InfiniteTimeSpan })
        .Guarded();

    private static async Task<Checkpoint> CheckpointAsync(TestPlatform test, Instance source) => await test.Checkpoints
        .CreateAsync(new CreateCheckpointRequest { From = source.Uuid, WaitTimeout = Timeout.InfiniteTimeSpan })
        .Guarded();
}
