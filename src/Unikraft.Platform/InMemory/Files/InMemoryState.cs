using System.Text.Json;
using System.Text.Json.Serialization;

namespace Unikraft.Platform.InMemory.Files;

/// <summary>What is written down of a scripted guest and its machine.</summary>
internal sealed record InMemoryState(
    Guid Id,
    Guid Uuid,
    string Name,
    string Image,
    int Vcpus,
    int MemoryMb,
    IReadOnlyList<string> Args,
    IReadOnlyDictionary<string, string> Env,
    byte[] Guest)
{
    public bool IsBooted { get; init; }

    public bool HasReachedMain { get; init; }

    public int InitLevel { get; init; }

    public bool IsShuttingDown { get; init; }

    public int? ExitCode { get; init; }

    public GuestEvents? SleepEvents { get; init; }

    public TimeSpan? SleepDeadline { get; init; }

    public GuestRequest? Request { get; init; }

    public int RequestErrno { get; init; }

    public bool IsForkChild { get; init; }

    public Guid ForkChild { get; init; }

    public bool IsHanging { get; init; }

    public bool IsWakePending { get; init; }

    public TimeSpan Monotonic { get; init; }

    public byte[] Input { get; init => field = value ?? []; } = [];

    public byte[] Line { get; init => field = value ?? []; } = [];

    public int Depth { get; init; }

    public TimeSpan Pause { get; init; }

    public IReadOnlyList<DiskShape> Disks { get; init => field = value ?? []; } = [];

    internal static InMemoryState Of(Guid id, MachineState state, byte[] guest, TimeSpan pause) => new(
        id,
        state.Configuration.Uuid,
        state.Configuration.Name,
        state.Configuration.Image.Name,
        state.Configuration.Vcpus,
        state.Configuration.MemoryMb,
        state.Configuration.Args,
        state.Configuration.Env,
        guest)
    {
        IsBooted = state.IsBooted,
        HasReachedMain = state.HasReachedMain,
        InitLevel = state.InitLevel,
        IsShuttingDown = state.IsShuttingDown,
        ExitCode = state.ExitCode,
        SleepEvents = state.Sleep?.Events,
        SleepDeadline = state.Sleep?.Deadline,
        Request = state.Request,
        RequestErrno = state.RequestOutcome.Errno,
        IsForkChild = state.RequestOutcome.IsForkChild,
        ForkChild = state.RequestOutcome.ForkChild,
        IsHanging = state.IsHanging,
        IsWakePending = state.IsWakePending,
        Monotonic = state.Monotonic,
        Input = [.. state.Input],
        Line = [.. state.Line],
        Depth = state.Depth,
        Pause = pause,
        Disks = state.Disks,
    };

    internal MachineState ToMachineState(ScriptedGuest guest) => new(
        new Hypervisors.MachineConfiguration
        {
            Uuid = Uuid,
            Name = Name,
            Image = GuestImage.FromFile(Image),
            Vcpus = Vcpus,
            MemoryMb = MemoryMb,
            Args = Args,
            Env = Env,
        },
        guest)
    {
        IsBooted = IsBooted,
        HasReachedMain = HasReachedMain,
        InitLevel = InitLevel,
        IsShuttingDown = IsShuttingDown,
        ExitCode = ExitCode,
        Sleep = SleepEvents is { } events ? new GuestStep.Sleep(events, SleepDeadline) : null,
        Request = Request,
        RequestOutcome = new RequestOutcome(RequestErrno, IsForkChild, ForkChild),
        IsHanging = IsHanging,
        IsWakePending = IsWakePending,
        Monotonic = Monotonic,
        Input = Input,
        Line = Line,
        Depth = Depth,
        Disks = Disks,
    };
}

[JsonSourceGenerationOptions(
    DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingDefault,
    UnmappedMemberHandling = JsonUnmappedMemberHandling.Disallow,
    RespectNullableAnnotations = true,
    MaxDepth = 8)]
[JsonSerializable(typeof(InMemoryState))]
internal sealed partial class InMemoryStateSerializer : JsonSerializerContext;
