using BenchmarkDotNet.Attributes;
using Microsoft.Extensions.Logging.Abstractions;
using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Kvm;
using Unikraft.Platform.Kvm.Machines;

namespace Unikraft.Platform.Benchmarks;

/// <summary>
/// Forks, checkpoints and loads of a sleeping guest, each with everything that is to be taken away again. The harness beside this project measures the
/// ways to the first instruction alone, beside their floors.
/// </summary>
[MemoryDiagnoser]
public class SnapshotBenchmarks
{
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(30);

    private readonly SilentMonitor _monitor = new();
    private KvmHypervisor _hypervisor = null!;
    private IVirtualMachine _machine = null!;
    private IMachineSnapshot _snapshot = null!;
    private IUnikraftPlatform _platform = null!;
    private Guid _source;
    private Guid _checkpoint;

    /// <summary>The size of the guest's memory.</summary>
    [Params(64, 256)]
    public int MemoryMb { get; set; }

    /// <summary>Boots the source twice: as a machine of the backend, and as an instance of a platform.</summary>
    [GlobalSetup]
    public async Task SetUp()
    {
        string image = Guests.PathOf("counter");
        string[] arguments = ["--period-ms", "0", "--quiet"];
        _hypervisor = new KvmHypervisor(new KvmOptions(), new HypervisorContext(TimeProvider.System, NullLoggerFactory.Instance));
        MachineConfiguration configuration = new()
        {
            Uuid = Guid.NewGuid(),
            Name = "source",
            Image = image,
            Vcpus = 1,
            MemoryMb = MemoryMb,
            Args = arguments,
        };
        _machine = await _hypervisor.CreateAsync(configuration, _monitor);
        await _machine.StartAsync();
        await _monitor.MainReached;
        _snapshot = await _machine.CaptureAsync();

        _platform = new UnikraftPlatformBuilder().UseKvm().Build();
        CreateInstanceRequest request = new() { Image = image, MemoryMb = MemoryMb, Args = arguments, WaitTimeout = Patience };
        _source = (await _platform.Instances.CreateAsync(request)).Uuid;
        _checkpoint = (await _platform.Checkpoints.CreateAsync(new CreateCheckpointRequest { From = _source, WaitTimeout = Patience })).Uuid;
    }

    /// <summary>Restores a machine from a snapshot, starts it and ends it, in the backend alone.</summary>
    [Benchmark]
    public async Task Fork()
    {
        await using IVirtualMachine clone = await _hypervisor.RestoreAsync(_snapshot, Guid.NewGuid(), _monitor);
        await clone.StartAsync();
    }

    /// <summary>Takes a checkpoint of a running instance that did not change, and deletes it.</summary>
    [Benchmark]
    public async Task Checkpoint()
    {
        Checkpoint checkpoint = await _platform.Checkpoints.CreateAsync(new CreateCheckpointRequest { From = _source, WaitTimeout = Patience });
        await _platform.Checkpoints.DeleteAsync(checkpoint.Uuid);
    }

    /// <summary>Loads a checkpoint until the instance runs, and deletes the instance.</summary>
    [Benchmark]
    public async Task Load()
    {
        Instance instance =
            await _platform.Instances.CreateAsync(new CreateInstanceRequest { Checkpoint = _checkpoint, WaitTimeout = Patience });
        await _platform.Instances.DeleteAsync(instance.Uuid);
    }

    /// <summary>Ends everything.</summary>
    [GlobalCleanup]
    public async Task CleanUp()
    {
        await _platform.DisposeAsync();
        _snapshot.Dispose();
        await _machine.DisposeAsync();
        await _hypervisor.DisposeAsync();
    }

    private sealed class SilentMonitor : IMachineMonitor
    {
        private readonly TaskCompletionSource _mainReached = new(TaskCreationOptions.RunContinuationsAsynchronously);

        internal Task MainReached => _mainReached.Task;

        public void OnConsoleOutput(ReadOnlySpan<byte> output)
        {
        }

        public void OnMainReached() => _mainReached.TrySetResult();

        public void OnTemplateRequested()
        {
        }

        public void OnForkRequested()
        {
        }
    }
}
