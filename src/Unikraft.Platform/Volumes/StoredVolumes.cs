using System.Diagnostics.CodeAnalysis;

namespace Unikraft.Platform.Volumes;

/// <summary>Volumes by their ids, and by what owns them: of one owner as many are looked at as it has, however many there are. Guarded by the lock of the catalog.</summary>
internal sealed class StoredVolumes
{
    private readonly Dictionary<Guid, StoredVolume> _volumes = [];
    private readonly Dictionary<Guid, List<StoredVolume>> _owned = [];

    public IReadOnlyCollection<StoredVolume> All => _volumes.Values;

    public StoredVolume? Find(Guid uuid) => _volumes.GetValueOrDefault(uuid);

    public bool Has(Guid uuid) => _volumes.ContainsKey(uuid);

    public bool TryFind(Guid uuid, [NotNullWhen(true)] out StoredVolume? volume) => _volumes.TryGetValue(uuid, out volume);

    /// <summary>The volumes of an instance or a snapshot, in the order in which it has got them.</summary>
    public IReadOnlyList<StoredVolume> OwnedBy(Guid owner) => _owned.GetValueOrDefault(owner) ?? [];

    public void Add(StoredVolume volume)
    {
        _volumes.Add(volume.Identity.Uuid, volume);
        Own(volume);
    }

    /// <returns>Whether it was there.</returns>
    public bool Remove(Guid uuid)
    {
        if (!_volumes.Remove(uuid, out StoredVolume? volume))
        {
            return false;
        }

        Disown(volume);
        return true;
    }

    /// <summary>What is written down of a volume that is here has changed.</summary>
    public void Set(StoredVolume volume, VolumeRecord record)
    {
        bool isMoved = volume.Record.Owner != record.Owner;
        if (isMoved)
        {
            Disown(volume);
        }

        volume.Record = record;
        if (isMoved)
        {
            Own(volume);
        }
    }

    private void Own(StoredVolume volume)
    {
        if (volume.Record.Owner is not { } owner)
        {
            return;
        }

        if (!_owned.TryGetValue(owner, out List<StoredVolume>? owned))
        {
            _owned.Add(owner, owned = []);
        }

        owned.Add(volume);
    }

    private void Disown(StoredVolume volume)
    {
        if (volume.Record.Owner is { } owner && _owned.TryGetValue(owner, out List<StoredVolume>? owned) && owned.Remove(volume) && owned.Count == 0)
        {
            _owned.Remove(owner);
        }
    }
}
