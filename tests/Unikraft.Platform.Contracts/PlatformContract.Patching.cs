using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Contracts;

public abstract partial class PlatformContract
{
    private static readonly AutokillPolicy Hour = new(TimeSpan.FromHours(1));

    /// <summary>What patches are about, of a resource of any kind.</summary>
    private sealed record Metadata(IReadOnlyList<string> Tags, bool DeleteLock, AutokillPolicy? Autokill)
    {
        public static Metadata Of(Instance of) => new(of.Tags, of.DeleteLock, of.Autokill);

        public static Metadata Of(Checkpoint of) => new(of.Tags, of.DeleteLock, of.Autokill);

        public static Metadata Of(Template of) => new(of.Tags, of.DeleteLock, of.Autokill);
    }

    [ContractTheory]
    [InlineData("instance")]
    [InlineData("checkpoint")]
    [InlineData("template")]
    public async Task Tags_are_added_deleted_and_set(string kind)
    {
        await CreatePatchableAsync(kind);
        Assert.Equal(["first"], GetMetadata(kind).Tags);

        await PatchesAsync(["first", "second", "a-b+c_d.e:f=g"], new PatchOperation.AddTags("second", "first", "a-b+c_d.e:f=g", "second"));
        await PatchesAsync(["second", "a-b+c_d.e:f=g"], new PatchOperation.DelTags("first", "never-there"));
        await PatchesAsync(["b", "a"], new PatchOperation.SetTags("b", "a", "b"));
        await PatchesAsync(["a", "c"], new PatchOperation.AddTags("c"), new PatchOperation.DelTags("b"));
        await PatchesAsync([], new PatchOperation.SetTags());
        await PatchesAsync([]);

        async Task PatchesAsync(string[] expected, params PatchOperation[] operations)
        {
            Assert.Equal(expected, (await PatchAsync(kind, operations)).Tags);
            Assert.Equal(expected, GetMetadata(kind).Tags);
        }
    }

    [ContractTheory]
    [InlineData("instance")]
    [InlineData("checkpoint")]
    [InlineData("template")]
    public async Task A_patch_with_a_bad_operation_changes_nothing(string kind)
    {
        await CreatePatchableAsync(kind);
        string[] sixteen = [.. Enumerable.Range(0, 16).Select(i => $"tag-{i}")];
        (PatchOperation? Operation, string Message)[] bad =
        [
            (new PatchOperation.AddTags("with space"), "Invalid tag 'with space': 1 to 256 letters, digits and the characters - + _ . : = are allowed"),
            (new PatchOperation.SetTags(""), "Invalid tag '': 1 to 256 letters, digits and the characters - + _ . : = are allowed"),
            (new PatchOperation.DelTags("ä"), "Invalid tag 'ä': 1 to 256 letters, digits and the characters - + _ . : = are allowed"),
            (new PatchOperation.SetTags((IReadOnlyList<string>)null!), "'tags' is null; no tags are an empty list"),
            (new PatchOperation.AddTags(sixteen), "'tags' would have 18 entries; allowed are up to 16"),
            (new PatchOperation.SetAutokill(new AutokillPolicy(TimeSpan.FromTicks(-1))), "The autokill time -00:00:00.0000001 is out of range: 1 ms to 3650 days, or 0 for never."),
            (new PatchOperation.SetAutokill(new AutokillPolicy(TimeSpan.FromDays(3651))), "The autokill time 3651.00:00:00 is out of range: 1 ms to 3650 days, or 0 for never."),
            (null, "A patch operation is null"),
        ];
        foreach ((PatchOperation? operation, string message) in bad)
        {
            InvalidRequestException error = await FailsAsync<InvalidRequestException>(
                message,
                () => PatchAsync(kind, new PatchOperation.AddTags("new"), new PatchOperation.SetDeleteLock(true), operation!));
            Assert.Equal(PlatformErrorCode.InvalidRequest, error.Code);
            Metadata metadata = GetMetadata(kind);
            Assert.Equal((false, Hour), (metadata.DeleteLock, metadata.Autokill));
            Assert.Equal(["first"], metadata.Tags);
        }

        await PatchAsync(kind, new PatchOperation.SetTags(sixteen), new PatchOperation.AddTags(sixteen));
        await PatchAsync(kind, new PatchOperation.SetTags(new string('x', 256)));
        await Assert.ThrowsAsync<InvalidRequestException>(() => PatchAsync(kind, new PatchOperation.SetTags(new string('x', 257))));
    }

    [ContractTheory]
    [InlineData("instance")]
    [InlineData("checkpoint")]
    [InlineData("template")]
    public async Task A_delete_lock_refuses_deletion_until_it_is_removed(string kind)
    {
        await CreatePatchableAsync(kind);
        Assert.True((await PatchAsync(kind, new PatchOperation.SetDeleteLock(true))).DeleteLock);

        DeletionProtectedException error = await FailsAsync<DeletionProtectedException>("Deletion protection enabled", () => DeletePatchableAsync(kind));
        Assert.Equal((PlatformErrorCode.DeletionProtected, kind, "it"), (error.Code, error.Kind, error.Name));
        Assert.True(GetMetadata(kind).DeleteLock);

        await PatchAsync(kind, new PatchOperation.SetDeleteLock(false));
        await DeletePatchableAsync(kind);
        await FailsAsync<ResourceNotFoundException>($"No {kind} with name 'it'", () => PatchAsync(kind, new PatchOperation.SetTags()));
        Assert.Throws<ResourceNotFoundException>(() => GetMetadata(kind));
    }

    [ContractTheory]
    [InlineData("instance")]
    [InlineData("checkpoint")]
    [InlineData("template")]
    public async Task An_autokill_policy_is_set_and_described(string kind)
    {
        await CreatePatchableAsync(kind);
        Assert.Equal(Hour, GetMetadata(kind).Autokill);

        AutokillPolicy other = new(TimeSpan.FromDays(3650));
        Assert.Equal(other, (await PatchAsync(kind, new PatchOperation.SetAutokill(other))).Autokill);
        Assert.Null((await PatchAsync(kind, new PatchOperation.SetAutokill(new AutokillPolicy(TimeSpan.Zero)))).Autokill);
        await PatchAsync(kind, new PatchOperation.SetAutokill(other));
        Assert.Null((await PatchAsync(kind, new PatchOperation.SetAutokill(null))).Autokill);
        Assert.Null(GetMetadata(kind).Autokill);
    }

    [ContractFact]
    public async Task A_resource_can_be_created_locked_and_a_bad_request_creates_nothing()
    {
        CreateInstanceRequest request = Request("counter", "--period-ms", "0") with { Name = "it", Autostart = false };
        await Assert.ThrowsAsync<InvalidRequestException>(() => Instances.CreateAsync(request with { Tags = ["not a tag"] }).Guarded());
        await Assert.ThrowsAsync<InvalidRequestException>(
            () => Instances.CreateAsync(request with { Autokill = new AutokillPolicy(-TimeSpan.FromSeconds(1)) }).Guarded());
        Assert.Empty(Instances.List());
        await Instances.CreateAsync(request with { DeleteLock = true }).Guarded();
        await FailsAsync<DeletionProtectedException>("Deletion protection enabled", () => Instances.DeleteAsync("it").Guarded());

        CreateCheckpointRequest checkpoint = new() { From = "it", Name = "chk", DeleteLock = true };
        await Assert.ThrowsAsync<InvalidRequestException>(() => Checkpoints.CreateAsync(checkpoint with { Tags = [""] }).Guarded());
        Assert.Empty(Checkpoints.List());
        await Checkpoints.CreateAsync(checkpoint).Guarded();
        await FailsAsync<DeletionProtectedException>("Deletion protection enabled", () => Checkpoints.DeleteAsync("chk").Guarded());
    }

    [ContractTheory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task A_template_keeps_the_tags_the_lock_and_the_policy_of_its_instance(bool fromInside)
    {
        await CreateCounterAsync("it");
        await PatchAsync(
            "instance",
            new PatchOperation.AddTags("a", "b"),
            new PatchOperation.SetDeleteLock(true),
            new PatchOperation.SetAutokill(Hour));

        Template template = await ConvertAsync("it", fromInside);

        Assert.Equal(["a", "b"], template.Tags);
        Assert.Equal((true, Hour), (template.DeleteLock, template.Autokill));
        await FailsAsync<DeletionProtectedException>("Deletion protection enabled", () => Templates.DeleteAsync("it").Guarded());
        CreateInstanceRequest clone = new() { Template = "it", Autostart = false };
        Instance inheriting = await Instances.CreateAsync(clone).Guarded();
        Assert.Equal((false, Hour), (inheriting.DeleteLock, inheriting.Autokill));
        Assert.Empty(inheriting.Tags);
        Assert.Null((await Instances.CreateAsync(clone with { Autokill = new AutokillPolicy(TimeSpan.Zero) }).Guarded()).Autokill);
    }

    /// <summary>Makes an instance, checkpoint or template <c>it</c> with the tag <c>first</c> and a policy.</summary>
    private async Task CreatePatchableAsync(string kind)
    {
        bool isCheckpoint = string.Equals(kind, "checkpoint", StringComparison.Ordinal);
        CreateInstanceRequest instance = Request("counter", "--period-ms", "0") with { Name = "it", Autostart = false };
        await Instances.CreateAsync(isCheckpoint ? instance : instance with { Tags = ["first", "first"], Autokill = Hour }).Guarded();
        if (isCheckpoint)
        {
            await Checkpoints
                .CreateAsync(new CreateCheckpointRequest { From = "it", Name = "it", Tags = ["first", "first"], Autokill = Hour })
                .Guarded();
        }
        else if (string.Equals(kind, "template", StringComparison.Ordinal))
        {
            await Templates.ConvertAsync("it").Guarded();
        }
    }

    private async Task<Metadata> PatchAsync(string kind, params PatchOperation[] operations) => kind switch
    {
        "instance" => Metadata.Of(await Instances.PatchAsync("it", operations).Guarded()),
        "checkpoint" => Metadata.Of(await Checkpoints.PatchAsync("it", operations).Guarded()),
        _ => Metadata.Of(await Templates.PatchAsync("it", operations).Guarded()),
    };

    private Metadata GetMetadata(string kind) => kind switch
    {
        "instance" => Metadata.Of(Instances.Get("it")),
        "checkpoint" => Metadata.Of(Checkpoints.Get("it")),
        _ => Metadata.Of(Templates.Get("it")),
    };

    private Task DeletePatchableAsync(string kind) => kind switch
    {
        "instance" => Instances.DeleteAsync("it").Guarded(),
        "checkpoint" => Checkpoints.DeleteAsync("it").Guarded(),
        _ => Templates.DeleteAsync("it").Guarded(),
    };
}
