using System.Diagnostics;
using Unikraft.Platform.Contracts;
using Unikraft.Platform.Storage.Tests.Testing;
using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Storage.Tests.Recovery;

/// <summary>Archives in the hands of a tool that nobody here wrote: skopeo, which carries OCI images between directories, tars and registries.</summary>
[RequiresSkopeo]
public sealed class OciToolTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("oci-tools-").FullName;

    public void Dispose()
    {
        IReadOnlyList<string> problems = LeftImages.FindProblems(_folder);
        Directory.Delete(_folder, recursive: true);
        Assert.Empty(problems);
    }

    [ContractTheory]
    [InlineData("archive", "oci:")]
    [InlineData("archive.tar", "oci-archive:")]
    public async Task A_checkpoint_that_a_tool_has_carried_is_imported(string name, string transport)
    {
        await using DurablePlatform here = New("here");
        await here.Instances.CreateAsync(DurablePlatform.Request("kv") with
        {
            Name = "source",
            Volumes = [new InstanceVolume { SizeMb = 1, Filesystem = VolumeFilesystem.None, At = "/data" }],
            WaitTimeout = Timeout.InfiniteTimeSpan,
        }).Guarded();
        Assert.Equal("ok 1", await here.AskAsync("source", "put who both"));
        await here.CheckpointAsync("source", "point");
        string path = Path.Combine(_folder, name);
        await here.Platform.Data!.ExportAsync("point", path).Guarded();

        // What it sends to a registry is what it puts into a plain directory: every blob, compared with its digest.
        Assert.Contains("application/vnd.unikraft.platform.checkpoint.v1", await RunAsync("inspect", "--raw", transport + path), StringComparison.Ordinal);
        string plain = Path.Combine(_folder, "plain");
        await RunAsync("copy", "--preserve-digests", transport + path, "dir:" + plain);
        string carried = Path.Combine(_folder, "carried");
        await RunAsync("copy", "--preserve-digests", "dir:" + plain, "oci:" + carried + ":point");
        string tar = Path.Combine(_folder, "carried.tar");
        await RunAsync("copy", "--preserve-digests", "oci:" + carried + ":point", "oci-archive:" + tar);
        foreach ((string to, string archive) in ((string, string)[])[("there", carried), ("elsewhere", tar)])
        {
            await using DurablePlatform there = New(to);
            await there.Platform.Data!.ImportAsync(archive).Guarded();
            await there.Instances.CreateAsync(new CreateInstanceRequest { Name = "loaded", Checkpoint = "point", WaitTimeout = Timeout.InfiniteTimeSpan }).Guarded();
            Assert.Equal("value=both", await there.AskAsync("loaded", "get who"));
            Assert.Empty(await there.Platform.Data!.VerifyAsync().Guarded());
        }
    }

    private DurablePlatform New(string host) => new(options: options => options.VolumeDirectory = Path.Combine(_folder, host));

    private static async Task<string> RunAsync(params string[] arguments)
    {
        using Process process = Process.Start(new ProcessStartInfo(RequiresSkopeoAttribute.Skopeo, ["--insecure-policy", .. arguments])
        {
            UseShellExecute = false,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        })!;
        Task<string> errors = process.StandardError.ReadToEndAsync();
        string output = await process.StandardOutput.ReadToEndAsync().Guarded();
        await process.WaitForExitAsync().Guarded();
        Assert.True(process.ExitCode == 0, await errors);
        return output;
    }
}
