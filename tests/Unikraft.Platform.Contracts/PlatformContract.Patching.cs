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

        Assert.Equal(TemplateState.Template, template.State);
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

    [ContractFact]
    public async Task What_an_instance_boots_with_is_patched_at_once_when_it_is_stopped()
    {
        Instance stopped = await Instances.CreateAsync(Request("hello", "one") with
        {
            Name = "it",
            Autostart = false,
            Env = new Dictionary<string, string>(StringComparer.Ordinal) { ["A"] = "a", ["B"] = "b" },
        }).Guarded();

        Instance patched = await Instances.PatchAsync("it",
        [
            new PatchOperation.AddArgs("two", "three"),
            new PatchOperation.DelArgs("one"),
            new PatchOperation.AddEnv(new Dictionary<string, string>(StringComparer.Ordinal) { ["B"] = "c", ["C"] = "d" }),
            new PatchOperation.DelEnv("A"),
            new PatchOperation.SetMemoryMb(stopped.MemoryMb / 2),
            new PatchOperation.SetVcpus(1),
            new PatchOperation.AddTags("patched"),
        ]).Guarded();

        Assert.Equal(["two", "three"], patched.Args);
        Assert.Equal((32, 1), (patched.MemoryMb, patched.Vcpus));
        Assert.Equal(["patched"], patched.Tags);
        Assert.Empty(patched.Updates);
        await Instances.StartAsync("it").Guarded();
        await Instances.WaitAsync("it", InstanceState.Stopped).Guarded();
        Assert.Equal(
            "Hello from a flat guest: 1 vCPU(s), 32 MiB\narg[0]=it\narg[1]=two\narg[2]=three\nenv B=c\nenv C=d\n",
            Instances.ReadLog("it").Text);

        Instance replaced = await Instances.PatchAsync("it",
        [
            new PatchOperation.SetImage(Image("counter")),
            new PatchOperation.SetArgs("--period-ms", "0"),
            new PatchOperation.SetEnv(new Dictionary<string, string>(StringComparer.Ordinal)),
        ]).Guarded();
        Assert.Equal((Image("counter").Name, 0), (replaced.Image, replaced.Env.Count));
        await Instances.StartAsync("it").Guarded();
        Assert.Equal(1, (await TickAsync("it")).Tick);
    }

    [ContractFact]
    public async Task What_a_running_instance_boots_with_is_pending_until_it_boots_again()
    {
        await CreateCounterAsync("it");
        await TickAsync("it");
        PatchOperation update = new PatchOperation.SetMemoryMb(32);

        Instance patched = await Instances.PatchAsync("it", [update, new PatchOperation.SetDeleteLock(true)]).Guarded();
        Assert.Equal((64, true), (patched.MemoryMb, patched.DeleteLock));
        Assert.Equal([update], patched.Updates);

        // Its memory is that of 64 MiB: a branch is what it is, and a suspended one continues as it is.
        Assert.Equal(64, (await BranchAsync("it")).MemoryMb);
        Assert.Equal([update], (await Instances.SuspendAsync("it").Guarded()).Updates);
        await Instances.StartAsync("it").Guarded();
        Assert.Equal(2, (await TickAsync("it")).Tick);
        Assert.Equal(64, Instances.Get("it").MemoryMb);

        Instance stopped = await Instances.StopAsync("it").Guarded();
        Assert.Equal(32, stopped.MemoryMb);
        Assert.Empty(stopped.Updates);
        await Instances.StartAsync("it").Guarded();
        Assert.Equal(1, (await TickAsync("it")).Tick);
    }

    [ContractFact]
    public async Task A_patch_of_what_an_instance_boots_with_is_checked_before_anything_changes()
    {
        Instance before = await CreateCounterAsync("it");
        await CheckpointAsync("it", "chk");
        PatchOperation[] refused =
        [
            new PatchOperation.SetMemoryMb(0),
            new PatchOperation.SetVcpus(Platform.Hypervisor.MaxVcpus + 1),
            new PatchOperation.SetArgs("a\0b"),
            new PatchOperation.SetArgs((IReadOnlyList<string>)null!),
            new PatchOperation.SetImage(null!),
            new PatchOperation.AddEnv(new Dictionary<string, string>(StringComparer.Ordinal) { ["A=B"] = "c" }),
            new PatchOperation.SetScaleToZero(new ScaleToZero(Stateful: true, TimeSpan.FromDays(2))),
        ];
        foreach (PatchOperation operation in refused)
        {
            await Assert.ThrowsAsync<InvalidRequestException>(
                () => Instances.PatchAsync("it", [new PatchOperation.AddTags("tag"), new PatchOperation.SetVcpus(1), operation]).Guarded());
        }

        await FailsAsync<InvalidRequestException>(
            "'SetVcpus' is for instances only; allowed are changes of tags, delete_lock and autokill",
            () => Checkpoints.PatchAsync("chk", [new PatchOperation.SetVcpus(1)]).Guarded());
        Instance after = Instances.Get("it");
        Assert.Equal((before.MemoryMb, before.Vcpus, 0, 0), (after.MemoryMb, after.Vcpus, after.Tags.Count, after.Updates.Count));
    }

    [ContractFact]
    public async Task Scaling_to_zero_is_patched_at_once()
    {
        await CreateCounterAsync("it");
        Assert.Equal(Stateful, (await Instances.PatchAsync("it", [new PatchOperation.SetScaleToZero(Stateful)]).Guarded()).ScaleToZero);
        Assert.Equal(InstanceState.Standby, (await Instances.SuspendAsync("it").Guarded()).State);

        Instance patched = await Instances.PatchAsync("it", [new PatchOperation.SetScaleToZero(ScaleToZero: null)]).Guarded();
        Assert.Equal((InstanceState.Standby, null), (patched.State, patched.ScaleToZero));
        await Instances.StartAsync("it").Guarded();
        Assert.Equal(InstanceState.Stopped, (await Instances.SuspendAsync("it").Guarded()).State);
    }
}
