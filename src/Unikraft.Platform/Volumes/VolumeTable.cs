using System.Diagnostics.CodeAnalysis;

namespace Unikraft.Platform.Volumes;

/// <summary>The volumes by their UUIDs, and by who owns them: a start asks that for each snapshot that there is.</summary>
/// <remarks>Not safe for concurrent use.</remarks>
internal sealed class VolumeTable
{
    private readonly Dictionary<Guid, StoredVolume> _volumes = [];
    private readonly Dictionary<Guid, List<StoredVolume>> _owned = [];

    internal IReadOnlyCollection<StoredVolume> Values => _volumes.Values;

    internal bool ContainsKey(Guid uuid) => _volumes.ContainsKey(uuid);

    internal bool TryGetValue(Guid uuid, [NotNullWhen(true)] out StoredVolume? volume) => _volumes.TryGetValue(uuid, out volume);

    internal StoredVolume? Find(Guid uuid) => _volumes.GetValueOrDefault(uuid);

    internal IReadOnlyList<StoredVolume> OwnedBy(Guid owner) => _owned.TryGetValue(owner, out List<StoredVolume>? volumes) ? [.. volumes] : [];

    internal void Add(StoredVolume volume)
    {
        _volumes.Add(volume.Identity.Uuid, volume);
        AddToOwner(volume);
    }

    internal bool Remove(Guid uuid)
    {
        if (!_volumes.Remove(uuid, out StoredVolume? volume))
        {
            return false;
        }

        RemoveFromOwner(volume);
        return true;
    }

    /// <summary>Changes what is written down of a volume, and with it who owns it.</summary>
    internal void Set(StoredVolume volume, VolumeRecord record)
    {
        if (volume.Record.Owner == record.Owner || !_volumes.ContainsKey(volume.Identity.Uuid))
        {
            volume.Record = record;
            return;
        }

        RemoveFromOwner(volume);
        volume.Record = record;
        AddToOwner(volume);
    }

    private void AddToOwner(StoredVolume volume)
    {
        if (volume.Record.Owner is not { } owner)
        {
            return;
        }

        if (!_owned.TryGetValue(owner, out List<StoredVolume>? volumes))
        {
            _owned.Add(owner, volumes = []);
        }

        volumes.Add(volume);
    }

    private void RemoveFromOwner(StoredVolume volume)
    {
        if (volume.Record.Owner is { } owner && _owned.TryGetValue(owner, out List<StoredVolume>? volumes) && volumes.Remove(volume) && volumes.Count == 0)
        {
            _owned.Remove(owner);
        }
    }
}
