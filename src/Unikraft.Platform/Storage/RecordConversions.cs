using System.Collections.ObjectModel;
using Unikraft.Platform.Instances;
using Unikraft.Platform.Resources;

namespace Unikraft.Platform.Storage;

/// <summary>Between what is kept and what it stands for.</summary>
internal static class RecordConversions
{
    internal static ConfigurationRecord ToRecord(this InstanceConfiguration configuration, DataDirectory data) => new(
        data.Images.RecordOf(configuration.Image),
        configuration.Vcpus,
        configuration.MemoryMb,
        configuration.Args,
        configuration.Env)
    {
        Annotations = configuration.Annotations.Count == 0 ? null : configuration.Annotations,
    };

    internal static InstanceConfiguration ToConfiguration(this ConfigurationRecord record, DataDirectory data) => new(
        data.Images.Load(record.Image),
        record.Vcpus,
        record.MemoryMb,
        record.Args,
        new Dictionary<string, string>(record.Env, StringComparer.Ordinal).AsReadOnly())
    {
        Annotations = record.Annotations is { } annotations
            ? new Dictionary<string, string>(annotations, StringComparer.Ordinal).AsReadOnly()
            : ReadOnlyDictionary<string, string>.Empty,
    };

    internal static OriginRecord ToRecord(this InstanceOrigin origin) => new(origin.Kind, origin.Uuid, origin.Name);

    internal static InstanceOrigin? ToOrigin(this OriginRecord? record) => record is null ? null : new(record.Kind, record.Uuid, record.Name);

    internal static ResourceIdentity ToIdentity(this ResourceRecord record, Guid uuid) => new(uuid, record.Name, record.CreatedAt, record.Order);

    internal static ResourceMetadata ToMetadata(this ResourceRecord record) =>
        new([.. record.Tags], record.DeleteLock, record.Autokill is { } ticks ? new AutokillPolicy(TimeSpan.FromTicks(ticks)) : null);
}
