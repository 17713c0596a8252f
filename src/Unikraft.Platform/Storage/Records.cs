using System.Text.Json;
using System.Text.Json.Serialization;
using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Instances;
using Unikraft.Platform.Volumes;

namespace Unikraft.Platform.Storage;

/// <summary>What is kept of a resource. Durations and service times are in units of 100 ns.</summary>
internal abstract record ResourceRecord
{
    public required string Name { get; init; }

    public required DateTimeOffset CreatedAt { get; init; }

    public long Order { get; init; }

    public required ConfigurationRecord Configuration { get; init; }

    /// <summary>The head of the lineage: a record of its own, so that a long one is not written again with each resource.</summary>
    public Guid? Lineage { get; init; }

    public IReadOnlyList<string> Tags { get; init => field = value ?? []; } = [];

    public bool DeleteLock { get; init; }

    public long? Autokill { get; init; }

    /// <summary>The service time since when it is not used.</summary>
    public long? UnusedSince { get; init; }

    /// <summary>The snapshot that it continues from.</summary>
    public Guid? Snapshot { get; init; }

    /// <summary>What that needs of a machine; <see langword="null"/> when it has no memory, or was kept before this was. In archives it is beside the record.</summary>
    public IReadOnlyDictionary<string, string>? Machine { get; init; }

    public OriginRecord? Origin { get; init; }

    /// <summary>The contents of images that are kept for it.</summary>
    [JsonIgnore]
    public virtual IEnumerable<string> ImageDigests => Configuration.Image.Digests;
}

internal sealed record ConfigurationRecord(ImageRecord Image, int Vcpus, int MemoryMb, IReadOnlyList<string> Args, IReadOnlyDictionary<string, string> Env)
{
    /// <summary>What callers have noted; <see langword="null"/> for nothing.</summary>
    public IReadOnlyDictionary<string, string>? Annotations { get; init; }
}

/// <param name="Name">The name shown.</param>
/// <param name="Digest">The SHA-256 of the content, under which it is kept; <see langword="null"/> when it could not be read yet.</param>
/// <param name="Path">Where it is to be read from when it is not kept.</param>
internal sealed record ImageRecord(string Name, string? Digest, string? Path)
{
    /// <summary>The SHA-256 of the initial RAM disk, if it has one that is kept.</summary>
    public string? Initrd { get; init; }

    public string? CommandLine { get; init; }

    public IReadOnlyList<string>? Args { get; init; }

    public IReadOnlyDictionary<string, string>? Env { get; init; }

    /// <summary>The contents that are kept for it.</summary>
    [JsonIgnore]
    public IEnumerable<string> Digests => ((string?[])[Digest, Initrd]).OfType<string>();
}

internal sealed record OriginRecord(InstanceOriginKind Kind, Guid Uuid, string Name);

internal sealed record InstanceRecord : ResourceRecord
{
    public RestartPolicy RestartPolicy { get; init; }

    public InstanceFeatures Features { get; init; }

    public ScaleToZeroRecord? ScaleToZero { get; init; }

    public bool IsStandby { get; init; }

    public int StartCount { get; init; }

    public int RestartCount { get; init; }

    public RestartRecord? Restart { get; init; }

    /// <summary>The run that had ended.</summary>
    public PastRunRecord? Last { get; init; }

    /// <summary>The run that was under way.</summary>
    public RunRecord? Run { get; init; }

    public long Transitions { get; init; }

    /// <summary>Up to which offset the console output was in its file.</summary>
    public long LogEnd { get; init; }

    // A record of an earlier version has no such member, and then this is given null.
    public IReadOnlyList<VolumeMountRecord> Volumes { get; init => field = value ?? []; } = [];

    public IReadOnlyList<RomMount> Roms { get; init => field = value ?? []; } = [];

    /// <summary>The ROMs that it has when it has booted its image; <see langword="null"/> when they are the same.</summary>
    public IReadOnlyList<RomMount>? NextRoms { get; init; }

    public IReadOnlyList<InstanceService> Services { get; init => field = value ?? []; } = [];

    /// <summary>What waits for it to boot its image; <see langword="null"/> when nothing does.</summary>
    public IReadOnlyList<UpdateRecord>? Updates { get; init; }

    [JsonIgnore]
    public override IEnumerable<string> ImageDigests =>
        base.ImageDigests.Concat((Updates ?? []).SelectMany(static update => update.Image?.Digests ?? []));
}

/// <param name="Volume">The volume.</param>
/// <param name="Slot">Where the guest has it.</param>
/// <param name="At">Where the guest mounts it.</param>
/// <param name="IsReadOnly">Whether the guest can only read it.</param>
/// <param name="Pending">What waits for the instance to stop.</param>
/// <param name="Resumptions">How often machines that continued from a snapshot had been given it to write to.</param>
internal sealed record VolumeMountRecord(Guid Volume, int Slot, string At, bool IsReadOnly, VolumeUpdate? Pending, int Resumptions);

internal sealed record ScaleToZeroRecord(bool Stateful, long CooldownTime);

/// <param name="Attempt">Counts the restarts of the sequence.</param>
/// <param name="NextAt">The service time of the next one; <see langword="null"/> when it is not waited for.</param>
internal sealed record RestartRecord(int Attempt, long? NextAt);

internal sealed record PastRunRecord(
    DateTimeOffset StartedAt,
    DateTimeOffset StoppedAt,
    long Uptime,
    long? BootTime,
    long CpuTime,
    int Reason,
    int? ExitCode,
    uint? StopCode,
    GuestFault? Fault);

/// <param name="StartedAt">When it was started.</param>
/// <param name="StartedService">The service time of that.</param>
/// <param name="BootTime">How long it took to start.</param>
/// <param name="IsStoppedByUser">Whether a user had asked for its end.</param>
internal sealed record RunRecord(DateTimeOffset StartedAt, long StartedService, long? BootTime, bool IsStoppedByUser);

internal sealed record CheckpointRecord : ResourceRecord
{
    public required SourceRecord Source { get; init; }

    public int LoadCount { get; init; }

    public long StoredBytes { get; init; }

    public long? Pause { get; init; }
}

internal sealed record SourceRecord(Guid Uuid, string Name, DateTimeOffset CreatedAt);

internal sealed record TemplateRecord : ResourceRecord
{
    public required DateTimeOffset ConvertedAt { get; init; }

    public int CloneCount { get; init; }

    public long StoredBytes { get; init; }
}

/// <summary>One checkpoint of a lineage.</summary>
internal sealed record LineageRecord(Guid Checkpoint, string Name, DateTimeOffset CreatedAt, Guid? Parent);

/// <summary>Writes and reads records. What is read is hostile.</summary>
[JsonSourceGenerationOptions(
    PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase,
    DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingDefault,
    UnmappedMemberHandling = JsonUnmappedMemberHandling.Disallow,
    RespectNullableAnnotations = true,
    RespectRequiredConstructorParameters = false,
    AllowDuplicateProperties = false,
    MaxDepth = 16)]
[JsonSerializable(typeof(InstanceRecord))]
[JsonSerializable(typeof(CheckpointRecord))]
[JsonSerializable(typeof(TemplateRecord))]
[JsonSerializable(typeof(LineageRecord))]
internal sealed partial class RecordSerializer : JsonSerializerContext
{
    internal static byte[] Encode(ResourceRecord record) => record switch
    {
        InstanceRecord instance => JsonSerializer.SerializeToUtf8Bytes(instance, Default.InstanceRecord),
        CheckpointRecord checkpoint => JsonSerializer.SerializeToUtf8Bytes(checkpoint, Default.CheckpointRecord),
        _ => JsonSerializer.SerializeToUtf8Bytes((TemplateRecord)record, Default.TemplateRecord),
    };

    /// <exception cref="MetadataDamageException">It is not a record of that kind.</exception>
    internal static ResourceRecord Decode(StateKind kind, ReadOnlySpan<byte> payload)
    {
        try
        {
            ResourceRecord? record = kind switch
            {
                StateKind.Instance => JsonSerializer.Deserialize(payload, Default.InstanceRecord),
                StateKind.Checkpoint => JsonSerializer.Deserialize(payload, Default.CheckpointRecord),
                _ => JsonSerializer.Deserialize(payload, Default.TemplateRecord),
            };
            return IsUsable(record) ? record! : throw new MetadataDamageException("is not the record of a resource");
        }
        catch (JsonException error)
        {
            throw new MetadataDamageException($"is not the record of a resource: {error.Message}");
        }
    }

    /// <exception cref="MetadataDamageException">It is no record of a lineage.</exception>
    internal static LineageRecord DecodeLineage(ReadOnlySpan<byte> payload)
    {
        try
        {
            return JsonSerializer.Deserialize(payload, Default.LineageRecord) is { Name: not null } record
                ? record
                : throw new MetadataDamageException("is not the record of a lineage");
        }
        catch (JsonException error)
        {
            throw new MetadataDamageException($"is not the record of a lineage: {error.Message}");
        }
    }

    private static bool AreUsable(InstanceRecord record) =>
        record.Volumes.All(static mount => mount is { At: not null, Slot: >= 0 and < MachineDisk.VolumeSlots, Pending: null or Platform.VolumeUpdate.Attach or Platform.VolumeUpdate.Detach })
        && record.Volumes.Select(static mount => mount.Slot).Distinct().Count() == record.Volumes.Count
        && AreUsable(record.Roms)
        && AreUsable(record.NextRoms ?? [])
        && record.Services is not null
        && ServiceRules.FindProblem(record.Services) is null
        && record.Updates?.All(static update => update is { IsUsable: true }) != false;

    private static bool AreUsable(IReadOnlyList<RomMount> roms) =>
        roms.All(static rom => rom is { Name: not null, Path: not null, At: not null, Slot: >= MachineDisk.VolumeSlots and < MachineDisk.Slots })
        && roms.Select(static rom => rom.Slot).Distinct().Count() == roms.Count;

    // It becomes the name of a file.
    private static bool IsHexDigest(string digest) => digest.Length == 2 * Checksum.Size && digest.All(char.IsAsciiHexDigitLower);

    private static bool IsUsable(ResourceRecord? record) =>
        record is { Name.Length: > 0, Configuration: { Image.Name.Length: > 0, Vcpus: > 0, MemoryMb: > 0, Args: not null, Env: not null }, Tags: not null }
        && record.Configuration.Args.All(static arg => arg is not null)
        && record.Configuration.Annotations?.Values.All(static value => value is not null) != false
        && record.Tags.All(static tag => tag is not null)
        && record.Machine?.Values.All(static value => value is not null) != false
        && record.Configuration.Image.Digests.All(IsHexDigest)
        && record is not CheckpointRecord { Source: null or { Name: null } }
        && record is not InstanceRecord { Volumes: null } and not InstanceRecord { Roms: null }
        && (record is not InstanceRecord instance || AreUsable(instance))
        && record.Autokill is null or > 0
        && record.UnusedSince is null or >= 0;
}
