using Unikraft.Platform.Kvm.Tests.Boot.Kernels;
using Unikraft.Platform.Kvm.Tests.Testing;
using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Kvm.Tests.Machines.Kernels;

/// <summary>Kernels in OCI image layouts, booted: a kernel gets the initrd, the arguments and the environment of its image.</summary>
[RequiresKvm]
public sealed class OciImageTests : IDisposable
{
    private readonly DirectoryInfo _folder = Directory.CreateTempSubdirectory("unikraft-image-");

    public void Dispose() => _folder.Delete(recursive: true);

    [ContractTheory]
    [InlineData(EchoKernel.Unikraft, false, false, false, "app env.vars=[ A=b=c ] -- /server --port 80")]
    [InlineData(EchoKernel.Unikraft, true, true, true, "app env.vars=[ A=b=c ] -- /server --port 80")]
    [InlineData(EchoKernel.BzImage, false, true, true, "console=ttyS0 panic=-1 A=b=c /server --port 80")]
    [InlineData(EchoKernel.Pvh, true, false, true, "console=ttyS0 panic=-1 A=b=c /server --port 80")]
    [InlineData(EchoKernel.Multiboot, true, true, false, "console=ttyS0 panic=-1 A=b=c /server --port 80")]
    public async Task Its_kernel_gets_its_initrd_its_arguments_and_its_environment(string protocol, bool isTar, bool isCompressed, bool isTyped, string commandLine)
    {
        (Instance stopped, string text) = await RunAsync(Write(protocol, isTar, isCompressed, isTyped), []);
        Assert.Equal($"{commandLine}\nthe initrd\n", text);
        Assert.Equal((StopReason.App | StopReason.Kernel, 0), (stopped.StopReason, stopped.ExitCode));
    }

    [ContractFact]
    public async Task Arguments_of_the_instance_replace_those_of_the_image()
    {
        (_, string text) = await RunAsync(Write(EchoKernel.Unikraft, isTar: false, isCompressed: false, isTyped: false), ["/other", "two words"]);
        Assert.Equal("app env.vars=[ A=b=c ] -- /other \"two words\"\nthe initrd\n", text);
    }

    [ContractFact]
    public async Task A_layout_without_a_kernel_that_can_be_booted_is_refused_and_leaves_nothing()
    {
        new OciLayoutBuilder(_folder.FullName).Write("no kernel"u8.ToArray(), []);
        await using IUnikraftPlatform platform = Open();
        ImageException error = await Assert.ThrowsAsync<ImageException>(() => platform.Instances.CreateAsync(Request(_folder.FullName, [])).Guarded());
        Assert.Equal(ImageError.UnknownFormat, error.Error);
        Assert.Contains("multiboot", error.Message, StringComparison.Ordinal);
        Assert.Empty(platform.Instances.List());
    }

    private string Write(string protocol, bool isTar, bool isCompressed, bool isTyped)
    {
        string layout = _folder.CreateSubdirectory("layout").FullName;
        OciLayoutBuilder builder = new(layout) { IsCompressed = isCompressed, IsTyped = isTyped };
        builder.Write(EchoKernel.Build(protocol), "the initrd"u8.ToArray());
        if (!isTar)
        {
            return layout;
        }

        string tar = Path.Combine(_folder.FullName, "image.tar");
        builder.Pack(tar);
        return tar;
    }

    private static async Task<(Instance Stopped, string Text)> RunAsync(string image, IReadOnlyList<string> args)
    {
        await using IUnikraftPlatform platform = Open();
        Instance instance = await platform.Instances.CreateAsync(Request(image, args)).Guarded();
        Instance stopped = await platform.Instances.WaitAsync(instance.Uuid, InstanceState.Stopped).Guarded();
        return (stopped, platform.Instances.ReadLog(instance.Uuid).Text);
    }

    private static CreateInstanceRequest Request(string image, IReadOnlyList<string> args) => new() { Name = "app", Image = image, MemoryMb = 32, Args = args };

    private static IUnikraftPlatform Open()
    {
        UnikraftPlatformBuilder builder = new();
        builder.UseKvm();
        return builder.Build();
    }
}
