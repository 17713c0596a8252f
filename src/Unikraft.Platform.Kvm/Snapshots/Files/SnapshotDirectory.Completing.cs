namespace Unikraft.Platform.Kvm.Snapshots.Files;

internal sealed partial class SnapshotDirectory
{
    private const string TemporaryState = StateFile.Suffix + FileStore.TemporarySuffix;
    private const string TemporaryLayer = LayerFormat.Suffix + FileStore.TemporarySuffix;

    // Not all of what the opening found under temporary names was completed or removed.
    private bool _areTemporaryKept;

    /// <summary>
    /// Gives files their names that had been written completely when the host ended, so that somebody may have been told of them; the others are removed.
    /// </summary>
    /// <param name="names">The names of the files that are there.</param>
    /// <param name="cancellationToken">Cancels it.</param>
    /// <returns>The names of the files that are there then.</returns>
    private IReadOnlyList<string> Complete(IReadOnlyList<string> names, CancellationToken cancellationToken)
    {
        string[] temporary = [.. names.Where(static name => TryGetId(name, TemporaryState, out _) || TryGetId(name, TemporaryLayer, out _))];
        if (temporary.Length == 0)
        {
            return names;
        }

        Dictionary<Guid, Digest> whole = FindWholeLayers(temporary, cancellationToken);
        (List<Guid> states, HashSet<LayerReference> wanted) = FindWholeStates(names, whole);

        // What is in the log knows no root checksum of a layer that was there too when it was saved.
        wanted.UnionWith(_pending
            .SelectMany(static pending => pending.State.Layers)
            .Select(layer => layer.Root == default && whole.TryGetValue(layer.Id, out Digest root) ? layer with { Root = root } : layer));

        // As when they are saved: all layers before the states that refer to them.
        foreach (LayerReference layer in wanted.Where(layer => IsWhole(layer, whole) && !HasLayer(layer)))
        {
            string name = LayerFormat.NameOf(layer.Id);
            _store.Rename(name + FileStore.TemporarySuffix, name);
        }

        foreach (Guid id in states)
        {
            string name = StateFile.NameOf(id);
            _store.Rename(name + FileStore.TemporarySuffix, name);
        }

        // What cannot be read now may be needed, or need it: it is looked at again when the directory is next opened.
        _areTemporaryKept = _unreadable.Count > 0;
        if (!_areTemporaryKept)
        {
            foreach (string name in temporary)
            {
                _store.Delete(name);
            }
        }

        _areNamesPending = true;
        return _store.List();
    }

    private static bool IsWhole(LayerReference layer, Dictionary<Guid, Digest> whole) => whole.TryGetValue(layer.Id, out Digest root) && root == layer.Root;

    /// <summary>The states under temporary names that can be used, and the layers that these and those under their own names refer to.</summary>
    private (List<Guid> States, HashSet<LayerReference> Layers) FindWholeStates(IReadOnlyList<string> names, Dictionary<Guid, Digest> whole)
    {
        HashSet<string> present = new(names, StringComparer.Ordinal);
        List<Guid> states = [];
        HashSet<LayerReference> layers = [];
        foreach (string name in names)
        {
            bool isTemporary = TryGetId(name, TemporaryState, out Guid id);
            if ((!isTemporary && !TryGetId(name, StateFile.Suffix, out id))
                || (isTemporary && present.Contains(StateFile.NameOf(id)))
                || TryReadReferences(name, id) is not { } references)
            {
                continue;
            }

            if (isTemporary)
            {
                if (!references.All(reference => IsWhole(reference, whole) || HasLayer(reference)))
                {
                    continue;
                }

                states.Add(id);
            }

            layers.UnionWith(references);
        }

        return (states, layers);
    }

    /// <summary>The layers under temporary names of which every byte is there.</summary>
    private Dictionary<Guid, Digest> FindWholeLayers(string[] names, CancellationToken cancellationToken)
    {
        Dictionary<Guid, Digest> whole = [];
        foreach (string name in names)
        {
            if (!TryGetId(name, TemporaryLayer, out Guid id))
            {
                continue;
            }

            try
            {
                using StoredFile? file = _store.TryOpen(name);
                LayerContents? contents = file is null ? null : LayerFile.ReadContents(file);
                if (contents?.Header.Id == id)
                {
                    LayerFile.VerifyPages(file!, contents, static _ => { }, cancellationToken);
                    whole.Add(id, contents.Root);
                }
            }
            catch (FileDamageException)
            {
                // It was being written.
            }
            catch (StorageException error)
            {
                NoteUnreadable(name, error);
            }
        }

        return whole;
    }

    /// <returns>The layers that a state refers to; <see langword="null"/> when it is not whole.</returns>
    private IReadOnlyList<LayerReference>? TryReadReferences(string name, Guid id)
    {
        try
        {
            SnapshotState state = ReadState(name);
            return state.Id == id ? state.Layers : null;
        }
        catch (FileDamageException)
        {
            return null;
        }
        catch (StorageException error)
        {
            NoteUnreadable(name, error);
            return null;
        }
    }

    /// <summary>Whether the file of a layer is there and is the one that is meant. Its pages are verified when they are needed.</summary>
    private bool HasLayer(LayerReference layer)
    {
        try
        {
            using StoredFile? file = _store.TryOpen(LayerFormat.NameOf(layer.Id));
            return file is not null && LayerFile.ReadContents(file) is { } contents && contents.Header.Id == layer.Id && contents.Root == layer.Root;
        }
        catch (FileDamageException)
        {
            return false;
        }
        catch (StorageException error)
        {
            NoteUnreadable(LayerFormat.NameOf(layer.Id), error);
            return false;
        }
    }

    // Nobody can tell what it is, and so what it needs.
    private void NoteUnreadable(string name, StorageException error)
    {
        Log.StateUnreadable(_logger, error, _store.PathOf(name));
        _unreadable.Add(name);
    }
}
