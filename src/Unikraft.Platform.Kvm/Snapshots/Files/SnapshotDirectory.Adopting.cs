namespace Unikraft.Platform.Kvm.Snapshots.Files;

internal sealed partial class SnapshotDirectory
{
    public IReadOnlyList<string> GetFiles(Guid id)
    {
        SettleIfPending(id);
        lock (_lock)
        {
            ObjectDisposedException.ThrowIf(_isDisposed, this);
            ThrowIfUnknown(id);
            return [StateFile.NameOf(id), .. _snapshots[id].Select(static layer => layer.Name).Distinct(StringComparer.Ordinal)];
        }
    }

    public async Task AdoptAsync(Guid id, string from, CancellationToken cancellationToken = default) =>
        await WriteAsync(
            () =>
            {
                Adopt(id, Path.GetFullPath(from));
                return true;
            },
            cancellationToken).ConfigureAwait(false);

    private void Adopt(Guid id, string from)
    {
        string state = StateFile.NameOf(id);
        lock (_lock)
        {
            if (_snapshots.ContainsKey(id))
            {
                throw new NameConflictException("A snapshot", id.ToString("D"));
            }
        }

        IReadOnlyList<string> names = _store.ListOf(from);
        if (!names.Contains(state, StringComparer.Ordinal))
        {
            throw Describe(state, new FileDamageException(SnapshotFileError.Missing, $"is missing in '{from}'"), [id]);
        }

        // As when it is saved: all layers before the state that refers to them.
        foreach (string name in names.Where(static name => TryGetId(name, LayerFormat.Suffix, out _)))
        {
            _store.Take(name, from);
        }

        _store.Sync();
        _store.Take(state, from);
        _store.Sync();
        lock (_lock)
        {
            ScanState(state);
            if (!_unreadable.Contains(state))
            {
                return;
            }
        }

        Delete(id);
        throw Describe(state, FileDamageException.Damaged("cannot be read"), [id]);
    }
}
