using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Volumes;

namespace Unikraft.Platform.Abstractions.Tests;

public sealed class ErrorTests
{
    private static readonly Guid Uuid = new("77d0316a-fbbe-488d-8618-5bf7a612477a");

    [Fact]
    public void A_taken_name_has_the_documented_text()
    {
        NameConflictException error = new("A checkpoint", "nightly");

        Assert.Equal("A checkpoint with the name 'nightly' already exists", error.Message);
        Assert.Equal("nightly", error.Name);
        Assert.Equal(PlatformErrorCode.AlreadyExists, error.Code);
    }

    [Fact]
    public void What_is_not_found_is_named_as_it_was_asked_for()
    {
        Assert.Equal("No instance with name 'web'", new ResourceNotFoundException("instance", "web").Message);
        Assert.Equal(
            "No checkpoint with uuid '77d0316a-fbbe-488d-8618-5bf7a612477a'",
            new ResourceNotFoundException("checkpoint", Uuid).Message);
        Assert.Equal(PlatformErrorCode.NotFound, new ResourceNotFoundException("instance", "web").Code);
    }

    [Fact]
    public void Every_error_has_its_code()
    {
        Exception cause = new InvalidOperationException("cause");
        (PlatformException Error, PlatformErrorCode Code)[] errors =
        [
            (new InvalidRequestException("m"), PlatformErrorCode.InvalidRequest),
            (new WrongStateException("m", InstanceState.Draining), PlatformErrorCode.WrongState),
            (new OperationTimedOutException(SampleInstance(), "m"), PlatformErrorCode.TimedOut),
            (new ImageException(ImageError.Truncated, "i", "m", cause), PlatformErrorCode.InvalidImage),
            (new HypervisorUnavailableException("m"), PlatformErrorCode.HypervisorUnavailable),
            (new HypervisorException("m", cause), PlatformErrorCode.HypervisorFailed),
            (new SnapshotFileException(SnapshotFileError.Missing, "/f", [Uuid], "m", cause), PlatformErrorCode.InvalidSnapshotFile),
            (new StorageException("/d", "m", isFull: true), PlatformErrorCode.StorageFailed),
            (new BlockDeviceException(BlockDeviceError.NoSpace, "/v", "m", cause), PlatformErrorCode.BlockDeviceFailed),
            (new DiskImageException(DiskImageError.InUse, "/v", "m", cause), PlatformErrorCode.InvalidDiskImage),
        ];

        Assert.All(errors, entry =>
        {
            Assert.Equal(entry.Code, entry.Error.Code);
            Assert.Equal("m", entry.Error.Message);
        });
        Assert.Same(cause, errors[3].Error.InnerException);
        Assert.Same(cause, errors[5].Error.InnerException);
        Assert.Equal(InstanceState.Draining, ((WrongStateException)errors[1].Error).State);
        Assert.Equal("web", ((OperationTimedOutException)errors[2].Error).Instance.Name);
        SnapshotFileException file = Assert.IsType<SnapshotFileException>(errors[6].Error);
        Assert.Equal((SnapshotFileError.Missing, "/f", cause), (file.Error, file.Path, file.InnerException));
        Assert.Equal([Uuid], file.Snapshots);
        StorageException storage = Assert.IsType<StorageException>(errors[7].Error);
        Assert.Equal(("/d", true), (storage.Path, storage.IsFull));
        BlockDeviceException device = Assert.IsType<BlockDeviceException>(errors[8].Error);
        Assert.Equal((BlockDeviceError.NoSpace, "/v", true), (device.Error, device.Device, device.IsTransient));
        Assert.False(new BlockDeviceException(BlockDeviceError.InputOutput, "/v", "m").IsTransient);
        DiskImageException image = Assert.IsType<DiskImageException>(errors[9].Error);
        Assert.Equal((DiskImageError.InUse, "/v"), (image.Error, image.Path));
    }

    [Fact]
    public void Only_what_may_succeed_later_is_transient() =>
        Assert.Equal(
            [PlatformErrorCode.SnapshotPending, PlatformErrorCode.TimedOut],
            Enum.GetValues<PlatformErrorCode>().Where(code => new PlatformException(code, "m").IsTransient));

    [Fact]
    public void A_machine_that_ended_says_how()
    {
        MachineExit exit = new MachineExit.PoweredOff(0, default(StopCode));

        MachineExitedException error = new(exit);

        Assert.Same(exit, error.Exit);
        Assert.Equal(PlatformErrorCode.WrongState, error.Code);
    }

    [Theory]
    [InlineData(InstanceState.Stopped, "stopped")]
    [InlineData(InstanceState.Starting, "starting")]
    [InlineData(InstanceState.Running, "running")]
    [InlineData(InstanceState.Draining, "draining")]
    [InlineData(InstanceState.Stopping, "stopping")]
    [InlineData(InstanceState.Standby, "standby")]
    public void States_have_their_documented_names(InstanceState state, string text) => Assert.Equal(text, state.ToText());

    [Fact]
    public void States_of_checkpoints_and_templates_have_their_documented_names() => Assert.Equal(
        ("starting", "checkpoint", "template"),
        (CheckpointState.Starting.ToText(), CheckpointState.Ready.ToText(), TemplateState.Template.ToText()));

    [Fact]
    public void A_number_that_is_no_state_has_no_name()
    {
        Assert.Throws<ArgumentOutOfRangeException>(() => ((InstanceState)6).ToText());
        Assert.Throws<ArgumentOutOfRangeException>(() => ((CheckpointState)2).ToText());
        Assert.Throws<ArgumentOutOfRangeException>(() => ((TemplateState)1).ToText());
    }

    private static Instance SampleInstance() => new()
    {
        Uuid = Uuid,
        Name = "web",
        CreatedAt = DateTimeOffset.UnixEpoch,
        State = InstanceState.Starting,
        Image = "hello.elf",
        Vcpus = 1,
        MemoryMb = 128,
        Args = [],
        Env = new Dictionary<string, string>(StringComparer.Ordinal),
        RestartPolicy = RestartPolicy.Never,
    };
}
