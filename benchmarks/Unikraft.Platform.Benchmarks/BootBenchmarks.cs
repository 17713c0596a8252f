using BenchmarkDotNet.Attributes;

namespace Unikraft.Platform.Benchmarks;

/// <summary>
/// A whole life of a flat guest by the public API: created, run to main, deleted with everything it held. The harness beside this project measures
/// the way to main alone.
/// </summary>
[MemoryDiagnoser]
public class BootBenchmarks
{
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(30);

    private IUnikraftPlatform _platform = null!;
    private CreateInstanceRequest _request = null!;

    /// <summary>The size of the guest's memory.</summary>
    [Params(64, 1024)]
    public int MemoryMb { get; set; }

    /// <summary>Makes a platform on KVM.</summary>
    [GlobalSetup]
    public void SetUp()
    {
        UnikraftPlatformBuilder builder = new();
        builder.UseKvm();
        _platform = builder.Build();
        _request = new CreateInstanceRequest { Image = Guests.PathOf("hello"), MemoryMb = MemoryMb, WaitTimeout = Patience };
    }

    /// <summary>Boots and deletes.</summary>
    [Benchmark]
    public async Task<Instance> BootAndDelete()
    {
        Instance instance = await _platform.Instances.CreateAsync(_request);
        return await _platform.Instances.DeleteAsync(instance.Uuid);
    }

    /// <summary>Ends the platform.</summary>
    [GlobalCleanup]
    public async Task CleanUp() => await _platform.DisposeAsync();
}
