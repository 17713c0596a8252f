namespace Unikraft.Platform.Kvm.Snapshots.Files;

/// <content>What is damaged, as far as it shows when the directory is opened.</content>
internal sealed partial class SnapshotDirectory
{
    private readonly List<SnapshotFileException> _damageFound = [];

    public IReadOnlyList<SnapshotFileException> DamageFound => _damageFound;

    private static FileDamageException DescribeMissing(StoredLayer layer) =>
        layer.Loss is { } loss ? FileDamageException.Damaged(loss) : new FileDamageException(SnapshotFileError.Missing, "is missing");

    // What else the host refuses may be over when somebody opens it.
    private void NoteUnreadable(string name, Exception error, Guid? snapshot)
    {
        FileDamageException? damage = error as FileDamageException ?? (error is StorageException refused && StoredFile.IsUnreadable(refused) ? Unreadable(refused) : null);
        if (damage is not null)
        {
            _damageFound.Add(snapshot is { } id ? Describe(name, damage, [id]) : DescribeLog(damage));
        }
    }

    private void NoteLost()
    {
        foreach ((Guid id, IReadOnlyList<Guid> layers) in _lost)
        {
            _damageFound.Add(DescribeLost(id, layers));
        }
    }

    private void NoteMissing(IEnumerable<StoredLayer> layers)
    {
        foreach (StoredLayer layer in layers.Where(static layer => !layer.IsLogged))
        {
            _damageFound.Add(Describe(layer.Name, DescribeMissing(layer), SnapshotsOf(layer)));
        }
    }

    private SnapshotFileException DescribeLog(FileDamageException error)
    {
        string path = _store.PathOf(LogFormat.Name);
        return new SnapshotFileException(
            error.Error,
            path,
            [],
            $"The file '{path}' {error.Message}. Nobody knows what was in it alone: snapshots that are missing may have been. Put a sound copy of the file there, or delete what needs it.",
            error);
    }
}
