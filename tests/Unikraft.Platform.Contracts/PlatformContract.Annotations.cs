using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Contracts;

public abstract partial class PlatformContract
{
    [ContractFact]
    public async Task Annotations_are_patched_at_once_and_inherited_with_those_that_are_given_besides()
    {
        Instance created = await Instances.CreateAsync(Request("counter", "--period-ms", "0") with
        {
            Name = "it",
            Annotations = Noted(("owner", "me"), ("example.com/team", "blue \u00e9")),
            WaitTimeout = Timeout.InfiniteTimeSpan,
        }).Guarded();
        Assert.Equal(Noted(("owner", "me"), ("example.com/team", "blue \u00e9")), created.Annotations);

        Instance patched = await Instances.PatchAsync(
            "it",
            [new PatchOperation.AddAnnotations(Noted(("owner", "you"), ("n", ""))), new PatchOperation.DelAnnotations("example.com/team", "nothing")]).Guarded();
        Assert.Equal(Noted(("owner", "you"), ("n", "")), patched.Annotations);
        Assert.Empty(patched.Updates);
        Assert.Equal(patched.Annotations, (await CheckpointAsync("it", "point")).Annotations);
        CreateInstanceRequest request = new() { Annotations = Noted(("owner", "them"), ("more", "x")), Autostart = false };
        IReadOnlyDictionary<string, string> merged = Noted(("owner", "them"), ("n", ""), ("more", "x"));
        Assert.Equal(merged, (await Instances.CreateAsync(request with { BranchFrom = "it" }).Guarded()).Annotations);
        Assert.Equal(merged, (await Instances.CreateAsync(request with { Checkpoint = "point" }).Guarded()).Annotations);
        Assert.Equal(patched.Annotations, (await BranchAsync("it")).Annotations);
        await Templates.ConvertAsync("it").Guarded();
        Assert.Equal(patched.Annotations, Templates.Get("it").Annotations);
        Instance clone = await Instances.CreateAsync(request with { Template = "it" }).Guarded();
        Assert.Equal(merged, clone.Annotations);
        Assert.Empty((await Instances.PatchAsync(clone.Uuid, [new PatchOperation.SetAnnotations(Noted())]).Guarded()).Annotations);
    }

    [ContractFact]
    public async Task Annotations_that_are_not_allowed_are_refused()
    {
        IReadOnlyDictionary<string, string> many = Enumerable.Range(0, 256).ToDictionary(static number => $"k{number}", static _ => "v", StringComparer.Ordinal);
        await Instances.CreateAsync(Request("counter", "--period-ms", "0") with { Name = "it", Annotations = many, Autostart = false }).Guarded();
        string[] badKeys = ["", "a b", "-a", "a-", "/a", "a/", "a/b/c", "Example.com/a", "a..b/c", "\u00e4", new string('a', 64)];
        foreach (string key in badKeys)
        {
            await FailsAsync<InvalidRequestException>(
                $"Invalid annotation key '{key}': a name of 1 to 63 letters, digits and '-', '_', '.' is needed, with or without a lower-case DNS name and '/' before it",
                () => PatchAnnotationsAsync(new PatchOperation.SetAnnotations(Noted((key, "v")))));
        }

        foreach (string? value in (string?[])[null, "a\nb", "\u007f"])
        {
            await FailsAsync<InvalidRequestException>(
                "The annotation 'k1' has a value that is null or has control characters",
                () => PatchAnnotationsAsync(new PatchOperation.AddAnnotations(Noted(("k1", value!)))));
        }

        const string TooMany = "'annotations' would have 257 entries; allowed are up to 256";
        await FailsAsync<InvalidRequestException>(TooMany, () => PatchAnnotationsAsync(new PatchOperation.AddAnnotations(Noted(("new", "v")))));
        await FailsAsync<InvalidRequestException>(
            TooMany,
            () => Instances.CreateAsync(new CreateInstanceRequest { BranchFrom = "it", Annotations = Noted(("new", "v")) }).Guarded());
        await FailsAsync<InvalidRequestException>("A patch of 'annotations' has no value", () => PatchAnnotationsAsync(new PatchOperation.SetAnnotations(null!)));
        Instance after = Assert.Single(Instances.List());
        Assert.Equal((256, 0), (after.Annotations.Count, after.Tags.Count));
    }

    private static Dictionary<string, string> Noted(params (string Key, string Value)[] entries) =>
        entries.ToDictionary(static entry => entry.Key, static entry => entry.Value, StringComparer.Ordinal);

    private Task<Instance> PatchAnnotationsAsync(PatchOperation operation) => Instances.PatchAsync("it", [new PatchOperation.AddTags("tag"), operation]).Guarded();
}
