using Microsoft.Extensions.Logging.Abstractions;
using Microsoft.Extensions.Options;
using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Kvm.Machines;
using Unikraft.Platform.Kvm.Tests.Testing;
using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Kvm.Tests.Machines;

/// <summary>The ways into the backend, and why there may be none.</summary>
[RequiresKvm]
public sealed class KvmProbeTests
{
    private static readonly string[] Extensions =
    [
        "KVM_CAP_USER_MEMORY", "KVM_CAP_VCPU_EVENTS", "KVM_CAP_DEBUGREGS", "KVM_CAP_XSAVE", "KVM_CAP_XCRS", "KVM_CAP_SYNC_REGS",
        "KVM_CAP_IMMEDIATE_EXIT", "KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2",
    ];

    [Fact]
    public void A_device_that_is_not_there_is_missing()
    {
        KvmSupport support = KvmProbe.Check("/dev/no-such-device");
        Assert.Equal(KvmProblem.DeviceMissing, support.Problem);
        Assert.False(support.IsUsable);
        Assert.StartsWith("There is no /dev/no-such-device.", support.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("/dev/null")]
    [InlineData("/dev/zero")]
    public void A_device_of_another_kind_fails(string path)
    {
        KvmSupport support = KvmProbe.Check(path);
        Assert.Equal(KvmProblem.DeviceFailed, support.Problem);
        Assert.StartsWith($"{path} does not answer like KVM: KVM_GET_API_VERSION failed", support.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_plain_file_fails()
    {
        string file = Path.GetTempFileName();
        Assert.Equal(KvmProblem.DeviceFailed, KvmProbe.Check(file).Problem);
        File.Delete(file);
    }

    [Theory]
    [InlineData("/dev")]
    [InlineData("")]
    [InlineData("/dev/kvm/below")]
    [InlineData("\0")]
    public void A_path_that_can_be_no_device_is_missing(string path) => Assert.Equal(KvmProblem.DeviceMissing, KvmProbe.Check(path).Problem);

    [ContractFact]
    public void The_real_device_can_be_used()
    {
        KvmSupport support = KvmProbe.Check();
        Assert.Equal(new KvmSupport(KvmProblem.None, "KVM API version 12 at /dev/kvm"), support);
        Assert.True(support.IsUsable);
    }

    [Theory]
    [InlineData(11)]
    [InlineData(13)]
    [InlineData(0)]
    public void Another_version_cannot_be_used(int version)
    {
        KvmSupport support = KvmProbe.Judge(version, [1, 1, 1, 1, 1, 7, 1, 1], "/dev/kvm");
        Assert.Equal(new KvmSupport(KvmProblem.ApiVersion, $"/dev/kvm has API version {version}; 12 is needed."), support);
    }

    [Theory]
    [InlineData(0)]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    [InlineData(4)]
    [InlineData(5)]
    [InlineData(6)]
    [InlineData(7)]
    public void Each_missing_extension_is_named(int missing)
    {
        int[] values = [1, 1, 1, 1, 1, 7, 1, 3];
        values[missing] = 0;
        Assert.Equal(
            new KvmSupport(KvmProblem.MissingExtension, $"/dev/kvm lacks {Extensions[missing]}. Use a kernel of version 5.2 or newer."),
            KvmProbe.Judge(12, values, "/dev/kvm"));
    }

    [Fact]
    public void Nothing_missing_is_usable() => Assert.True(KvmProbe.Judge(12, [1, 1, 1, 1, 1, 7, 1, 3], "/dev/kvm").IsUsable);

    [Theory]
    [InlineData(0)]
    [InlineData(-1)]
    [InlineData(30)]
    [InlineData(int.MaxValue)]
    public void An_impossible_signal_is_refused_before_anything_else(int offset)
    {
        FakeBuilder builder = new();
        Assert.Same(builder, builder.UseKvm(options => options.KickSignalOffset = offset));
        OptionsValidationException error = Assert.Throws<OptionsValidationException>(() => builder.Build());
        Assert.Equal(
            $"KickSignalOffset is {offset}; it must be 1 to 29. Signal SIGRTMIN+0 belongs to the .NET runtime.",
            Assert.Single(error.Failures));
    }

    [Theory]
    [InlineData(-1)]
    [InlineData(1025)]
    public void An_impossible_number_of_ready_machines_is_refused(int machines) =>
        Assert.Equal(
            $"ReadyMachines is {machines}; it must be 0 to 1024.",
            Assert.Single(new KvmOptionsValidator().Validate(null, new KvmOptions { ReadyMachines = machines }).Failures!));

    [Theory]
    [InlineData(-1, "-00:00:00.0010000")]
    [InlineData(60_001, "00:01:00.0010000")]
    public void An_impossible_delay_is_refused(int milliseconds, string text) =>
        Assert.Equal(
            $"RefillDelay is {text}; it must be 0 to 00:01:00.",
            Assert.Single(new KvmOptionsValidator()
                .Validate(null, new KvmOptions { RefillDelay = TimeSpan.FromMilliseconds(milliseconds) })
                .Failures!));

    [Theory]
    [InlineData(1)]
    [InlineData(6)]
    [InlineData(29)]
    public void A_possible_signal_is_accepted(int offset) =>
        Assert.True(new KvmOptionsValidator().Validate(null, new KvmOptions { KickSignalOffset = offset }).Succeeded);

    [Fact]
    public void The_default_signal_is_the_sixth() => Assert.Equal(6, new KvmOptions().KickSignalOffset);

    [ContractFact]
    public async Task UseKvm_makes_a_backend()
    {
        FakeBuilder builder = new();
        builder.UseKvm();
        await using IHypervisor hypervisor = builder.Build();
        Assert.Equal(new HypervisorInfo("kvm", "KVM API version 12 at /dev/kvm", 8, 2, 65536), hypervisor.Info);
    }

    [ContractFact]
    public async Task Two_backends_of_a_process_use_one_signal()
    {
        await using KvmHypervisor first = NewHypervisor();
        await using KvmHypervisor second = NewHypervisor();
        HypervisorException error = Assert.Throws<HypervisorException>(() => NewHypervisor(offset: 7));
        Assert.Equal("Another hypervisor of this process uses a different kick signal. Give both the same KickSignalOffset.", error.Message);
    }

    [ContractFact]
    public async Task A_backend_that_was_disposed_makes_no_machine()
    {
        KvmHypervisor hypervisor = NewHypervisor();
        await hypervisor.DisposeAsync();
        await hypervisor.DisposeAsync();
        MachineConfiguration configuration = new() { Uuid = Guid.NewGuid(), Name = "late", Image = GuestImages.Get("hello"), Vcpus = 1, MemoryMb = 16 };
        await Assert.ThrowsAsync<ObjectDisposedException>(() => hypervisor.CreateAsync(configuration, new RecordingMonitor()).AsTask());
    }

    [Fact]
    public void UseKvm_wants_a_builder() =>
        Assert.Throws<ArgumentNullException>(() => KvmPlatformBuilderExtensions.UseKvm<IPlatformBuilder>(null!));

    internal static KvmHypervisor NewHypervisor(int offset = KvmOptions.DefaultKickSignalOffset) =>
        new(new KvmOptions { KickSignalOffset = offset }, new HypervisorContext(TimeProvider.System, NullLoggerFactory.Instance));

    private sealed class FakeBuilder : IPlatformBuilder
    {
        private Func<HypervisorContext, IHypervisor>? _factory;

        public IPlatformBuilder UseHypervisor(Func<HypervisorContext, IHypervisor> factory)
        {
            _factory = factory;
            return this;
        }

        internal IHypervisor Build() => _factory!(new HypervisorContext(TimeProvider.System, NullLoggerFactory.Instance));
    }
}
