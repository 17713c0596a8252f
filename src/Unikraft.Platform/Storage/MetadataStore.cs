namespace Unikraft.Platform.Storage;

/// <summary>
/// The metadata of a data directory: a snapshot of all states, and a journal of what has changed since. One caller at a time.
/// </summary>
/// <remarks>
/// A journal is zero where it was not written to: appending changes no length, so that a change takes one sync, and a full disk does not keep anybody from
/// deleting. The generation before is kept: it says the same as the present snapshot, should that be damaged.
/// </remarks>
internal sealed class MetadataStore : IDisposable
{
    internal const string Folder = "metadata";

    /// <summary>A journal grows in steps of this.</summary>
    internal const int Step = 256 << 10;

    // So much of a journal is kept allocated ahead, if the disk allows.
    private const int Reserve = 64 << 10;
    private const int SnapshotFrameSize = 1 << 20;
    private const long MinCompactionSize = 4 << 20;

    // Version 2 has files that version 1 has not, and 3 has in its records what a snapshot needs of a machine. What there was is as it was: the numbers keep those away who
    // would not look for the files, and who would take the records for damaged.
    private static readonly Dictionary<int, Action<DataFiles>> Upgrades = new() { [1] = static _ => { }, [2] = static _ => { } };

    private readonly DataFiles _files;

    // Generations are rare and replace each other: left to the host, none of them might be on the disk when the power goes out.
    private readonly DataFiles _generations;
    private readonly int _version;
    private readonly Dictionary<StateKey, StateChange> _states = [];
    private readonly List<DataDamage> _damage = [];
    private IFile? _journal;
    private long _generation;
    private long _previousGeneration;
    private long _lastGeneration;
    private long _sequence;
    private long _end;
    private long _allocated;
    private long _snapshotSize;
    private Checksum _chain;
    private bool _mustCompact;

    private MetadataStore(DataFiles files, int version) => (_files, _generations, _version) = (files, files.Durable, version);

    /// <summary>The states, those lost to damage included.</summary>
    internal IReadOnlyDictionary<StateKey, StateChange> States => _states;

    /// <summary>What was found damaged when it was opened.</summary>
    internal IReadOnlyList<DataDamage> Damage => _damage;

    /// <summary>Bytes of a change that was being written when the process or the host ended, and was not acknowledged.</summary>
    internal long TornBytes { get; private set; }

    /// <summary>The time of the newest frame, in units of 100 ns.</summary>
    internal long ServiceTime { get; private set; }

    /// <summary>The most of the disk that the next change takes: room ahead, and before long a new generation.</summary>
    internal long NextGrowth => Step + (_mustCompact || _end > MinCompactionSize + (2 * _snapshotSize) - Step ? _snapshotSize + _end + Step : 0);

    internal long Generation => _generation;

    /// <summary>The checksum that stands for all metadata.</summary>
    internal Checksum Root => _chain;

    /// <summary>Opens the metadata, which are made if there are none.</summary>
    /// <param name="files">The directory.</param>
    /// <param name="upgrades">
    /// By version, what makes the next one of it. The manifest says the old version until all have returned, so each may be called again on what it has left half-done.
    /// </param>
    /// <param name="version">The version to bring the directory to.</param>
    /// <exception cref="DataDamageException">They cannot be used.</exception>
    /// <exception cref="DataVersionException">They are of a newer version.</exception>
    /// <exception cref="StorageException">The host refused.</exception>
    internal static MetadataStore Open(
        DataFiles files,
        IReadOnlyDictionary<int, Action<DataFiles>>? upgrades = null,
        int version = Manifest.CurrentVersion)
    {
        MetadataStore store = new(files, version);
        try
        {
            store.Open(upgrades ?? Upgrades);
            return store;
        }
        catch
        {
            store.Dispose();
            throw;
        }
    }

    /// <summary>Makes changes: when it returns they are on the disk, all of them; when it fails none of them holds yet.</summary>
    /// <exception cref="StorageException">The disk is full, or the host refused.</exception>
    internal void Append(IReadOnlyCollection<StateChange> changes, long serviceTime)
    {
        ServiceTime = Math.Max(ServiceTime, serviceTime);
        if (_mustCompact || _end > MinCompactionSize + (2 * _snapshotSize))
        {
            Dictionary<StateKey, StateChange> next = new(_states);
            Apply(next, changes);
            if (TryCompact(next, isRequired: _mustCompact))
            {
                Apply(_states, changes);
                return;
            }
        }

        Checksum chain = _chain;
        byte[] frame = MetadataFormat.EncodeFrame(_sequence + 1, ServiceTime, changes, flags: 0, ref chain);
        string name = NameOf(_generation, isSnapshot: false);
        if (_end + frame.Length > _allocated)
        {
            Extend(name, _end + frame.Length);
        }

        _files.Write(name, _journal!, _end, frame);
        try
        {
            _files.Sync(name, _journal!);
        }
        catch
        {
            // The kernel may have dropped what it could not write: only a new file can be trusted.
            _mustCompact = true;
            throw;
        }

        _end += frame.Length;
        _sequence++;
        _chain = chain;
        Apply(_states, changes);
        if (_allocated - _end < Reserve)
        {
            TryExtend(name);
        }
    }

    /// <summary>Begins a new generation, with everything in its snapshot.</summary>
    /// <exception cref="StorageException">The disk is full, or the host refused.</exception>
    internal void Compact(long serviceTime)
    {
        ServiceTime = Math.Max(ServiceTime, serviceTime);
        TryCompact(_states, isRequired: true);
    }

    /// <summary>Reads the files of the present generation again, and says what is wrong with them.</summary>
    internal IReadOnlyList<DataDamage> Verify()
    {
        List<DataDamage> found = [];
        try
        {
            Manifest manifest = Manifest.Decode(Read(Manifest.Name), _files.Root, _version);
            if (manifest.Generation != _generation)
            {
                found.Add(new DataDamage(_files.PathOf(Manifest.Name), "is not the file that should be there", []));
            }
        }
        catch (Exception error) when (error is MetadataDamageException or DataVersionException or StorageException)
        {
            found.Add(new DataDamage(_files.PathOf(Manifest.Name), error.Message, []));
        }

        string current = NameOf(_generation, isSnapshot: true);
        try
        {
            MetadataFile snapshot = MetadataFile.ReadSnapshot(Read(current), _generation);
            found.AddRange(snapshot.Damage.Select(message => new DataDamage(_files.PathOf(current), message, [])));
            current = NameOf(_generation, isSnapshot: false);
            MetadataFile journal = MetadataFile.ReadJournal(Read(current), _generation, snapshot.LastSequence, snapshot.Root);
            found.AddRange(journal.Damage.Select(message => new DataDamage(_files.PathOf(current), message, [])));
            if (journal.LastSequence != _sequence || journal.Root != _chain)
            {
                found.Add(new DataDamage(_files.PathOf(current), "does not hold what was written to it", []));
            }
        }
        catch (Exception error) when (error is MetadataDamageException or StorageException)
        {
            found.Add(new DataDamage(_files.PathOf(current), error.Message, []));
        }

        return found;
    }

    public void Dispose()
    {
        _journal?.Dispose();
        _journal = null;
    }

    private static string NameOf(long generation, bool isSnapshot) => Path.Combine(Folder, MetadataFormat.NameOf(generation, isSnapshot));

    private static void Apply(Dictionary<StateKey, StateChange> states, IEnumerable<StateChange> changes)
    {
        foreach (StateChange change in changes)
        {
            if (change.Kind == StateChangeKind.Remove)
            {
                states.Remove(change.Key);
            }
            else
            {
                states[change.Key] = change;
            }
        }
    }

    private void Open(IReadOnlyDictionary<int, Action<DataFiles>> upgrades)
    {
        _generations.MakeDirectory(Folder);
        Manifest? manifest = ReadManifest();
        List<long> generations = [.. ListGenerations()];
        if (manifest is not null)
        {
            for (int version = manifest.Version; version < _version; version++)
            {
                upgrades[version](_files);
            }
        }

        if (manifest is null && _damage.Count == 0)
        {
            TryCompact(_states, isRequired: true);
            return;
        }

        // Without a manifest the newest generation with a sound snapshot holds.
        _lastGeneration = Math.Max(generations.DefaultIfEmpty().Max(), manifest?.Generation ?? 0);
        Load(manifest?.Generation ?? (generations.Count > 0 ? generations.Max() : 1), manifest?.Root);
        bool isRequired = _damage.Count > 0 || manifest?.Version != _version;
        if (!TryCompact(_states, isRequired))
        {
            // The disk is full: what is there can be read and deleted, in what is left of the journal.
            _journal = _files.TryOpen(NameOf(_generation, isSnapshot: false))!;
        }

        DeleteOthers();
    }

    private Manifest? ReadManifest()
    {
        try
        {
            byte[]? content = TryRead(Manifest.Name);
            if (content is null)
            {
                if (!IsUnborn())
                {
                    _damage.Add(new DataDamage(_files.PathOf(Manifest.Name), "is missing", []));
                }

                return null;
            }

            return Manifest.Decode(content, _files.Root, _version);
        }
        catch (MetadataDamageException error)
        {
            _damage.Add(new DataDamage(_files.PathOf(Manifest.Name), error.Message, []));
            return null;
        }
    }

    /// <summary>Whether nothing was ever written: what is there was being made when the process or the host ended.</summary>
    private bool IsUnborn()
    {
        try
        {
            return ListGenerations().All(static generation => generation == 1)
                && (TryRead(NameOf(1, isSnapshot: false)) is not { Length: > MetadataFormat.HeaderSize } journal
                    || !journal.AsSpan(MetadataFormat.HeaderSize).ContainsAnyExcept((byte)0));
        }
        catch (MetadataDamageException)
        {
            // What is in there is not known. Whoever loads it says so.
            return false;
        }
    }

    private IEnumerable<long> ListGenerations() => _files.List(Folder)
        .Select(static name => MetadataFormat.TryParseName(name, out long generation, out _) ? generation : 0)
        .Where(static generation => generation > 0)
        .Distinct();

    private void Load(long generation, Checksum? root)
    {
        string name = NameOf(generation, isSnapshot: true);
        MetadataFile state;
        try
        {
            byte[] content = Read(name);
            state = MetadataFile.ReadSnapshot(content, generation);
            if (root is { } expected && state.Root != expected)
            {
                throw new MetadataDamageException("is not the file that the manifest names");
            }

            if (state.Damage.Count > 0)
            {
                throw new MetadataDamageException(state.Damage[0]);
            }

            _snapshotSize = content.Length;
            Replay(state, name);
            state = ReadJournal(generation, state.LastSequence, state.Root);
        }
        catch (MetadataDamageException error)
        {
            _damage.Add(new DataDamage(_files.PathOf(name), error.Message, []));
            state = LoadPrevious(generation, name, error);
        }

        (_generation, _sequence, _chain, _end) = (generation, state.LastSequence, state.Root, state.Length);
    }

    /// <summary>Makes the state of a generation whose snapshot is damaged from the one before, which was kept for this.</summary>
    private MetadataFile LoadPrevious(long generation, string damaged, MetadataDamageException damage)
    {
        long before = ListGenerations().Where(other => other < generation).DefaultIfEmpty().Max();
        string name = NameOf(before, isSnapshot: true);
        try
        {
            _states.Clear();
            MetadataFile previous = MetadataFile.ReadSnapshot(Read(name), before);
            Replay(previous, name);
            MetadataFile since = ReadJournal(before, previous.LastSequence, previous.Root);

            // The journal of the damaged generation names the snapshot that it builds on, and its frames prove it.
            byte[]? content = TryRead(NameOf(generation, isSnapshot: false));
            return content is null
                ? since
                : ReadJournal(generation, since.LastSequence, MetadataFormat.DecodeHeader(content).Base);
        }
        catch (MetadataDamageException)
        {
            throw new DataDamageException(
                _files.PathOf(damaged),
                [],
                $"The file '{_files.PathOf(damaged)}' {damage.Message}, and the metadata before it cannot be used either. All resources of the data "
                + $"directory '{_files.Root}' depend on it. Put a sound copy of the folder '{Folder}' there.");
        }
    }

    private MetadataFile ReadJournal(long generation, long sequence, Checksum snapshot)
    {
        string name = NameOf(generation, isSnapshot: false);
        byte[]? content;
        MetadataFile journal;
        try
        {
            content = TryRead(name);
            if (content is null)
            {
                _damage.Add(new DataDamage(_files.PathOf(name), "is missing", []));
                return new MetadataFile([], snapshot, sequence, 0, 0, []);
            }

            journal = MetadataFile.ReadJournal(content, generation, sequence, snapshot, endsAtHole: !_files.IsSynced);
        }
        catch (MetadataDamageException error)
        {
            throw new DataDamageException(
                _files.PathOf(name),
                [],
                $"The file '{_files.PathOf(name)}' {error.Message}. All resources of the data directory '{_files.Root}' depend on it. Put a sound copy of the "
                + $"folder '{Folder}' there.");
        }

        Replay(journal, name);
        int torn = content.AsSpan((int)journal.Length).LastIndexOfAnyExcept((byte)0) + 1;
        if (torn > 0)
        {
            TornBytes += torn;
        }
        else if ((content.Length - MetadataFormat.HeaderSize) % Step != 0)
        {
            _damage.Add(new DataDamage(_files.PathOf(name), "is not as long as it was; changes may be missing", []));
        }

        _allocated = content.Length;
        return journal;
    }

    private void Replay(MetadataFile file, string name)
    {
        _damage.AddRange(file.Damage.Select(message => new DataDamage(_files.PathOf(name), message, [])));
        foreach (IReadOnlyList<StateChange> frame in file.Frames)
        {
            Apply(_states, frame);
        }

        ServiceTime = Math.Max(ServiceTime, file.ServiceTime);
    }

    private byte[] Read(string name) => TryRead(name) ?? throw new MetadataDamageException("is missing");

    /// <exception cref="MetadataDamageException">The disk has lost it.</exception>
    private byte[]? TryRead(string name)
    {
        try
        {
            return _files.TryRead(name);
        }
        catch (StorageException error) when (DataFiles.IsUnreadable(error))
        {
            throw new MetadataDamageException($"cannot be read: {error.Message}");
        }
    }

    /// <returns>False when the disk is full and the present generation can still be used.</returns>
    private bool TryCompact(IReadOnlyDictionary<StateKey, StateChange> states, bool isRequired)
    {
        long generation = ++_lastGeneration;
        bool isCommitting = false;
        try
        {
            Checksum root = default;
            long size = 0;
            _generations.Publish(NameOf(generation, isSnapshot: true), file =>
            {
                byte[] header = MetadataFormat.EncodeHeader(new MetadataHeader(IsSnapshot: true, generation, _sequence, _chain));
                root = Checksum.Of(header);
                file.Append(header);
                WriteFrames(file, states, ref root);
                size = file.Length;
            });
            string journal = NameOf(generation, isSnapshot: false);
            _generations.Publish(journal, file =>
            {
                file.Append(MetadataFormat.EncodeHeader(new MetadataHeader(IsSnapshot: false, generation, _sequence, root)));
                file.Append(new byte[Step]);
            });
            IFile opened = _files.TryOpen(journal) ?? throw new StorageException(_files.PathOf(journal), "The journal is gone that was just written.");
            try
            {
                isCommitting = true;
                _generations.Publish(Manifest.Name, new Manifest(_version, generation, root).Encode());
            }
            catch
            {
                opened.Dispose();
                throw;
            }

            _journal?.Dispose();
            (_journal, _previousGeneration, _generation, _chain, _snapshotSize) = (opened, _generation, generation, root, size);
            (_end, _allocated, _mustCompact) = (MetadataFormat.HeaderSize, MetadataFormat.HeaderSize + Step, false);
            DeleteOthers();
            return true;
        }
        catch (StorageException)
        {
            if (isCommitting)
            {
                // The manifest may name the new generation by now: nothing may be written to the old one any more.
                _mustCompact = true;
                throw;
            }

            _files.DeleteIfPossible(NameOf(generation, isSnapshot: true));
            _files.DeleteIfPossible(NameOf(generation, isSnapshot: false));
            if (isRequired)
            {
                throw;
            }

            return false;
        }
    }

    private void DeleteOthers()
    {
        foreach (long other in ListGenerations().Where(other => other != _generation && other != _previousGeneration))
        {
            _files.DeleteIfPossible(NameOf(other, isSnapshot: true));
            _files.DeleteIfPossible(NameOf(other, isSnapshot: false));
        }
    }

    private void WriteFrames(DataFiles.Appender file, IReadOnlyDictionary<StateKey, StateChange> states, ref Checksum root)
    {
        List<StateChange> frame = [];
        long sequence = 0;
        int size = 0;
        foreach (StateChange change in states.Values)
        {
            if (size > SnapshotFrameSize)
            {
                file.Append(MetadataFormat.EncodeFrame(++sequence, ServiceTime, frame, flags: 0, ref root));
                frame.Clear();
                size = 0;
            }

            frame.Add(change);
            size += change.Payload.Length;
        }

        file.Append(MetadataFormat.EncodeFrame(++sequence, ServiceTime, frame, MetadataFormat.IsLast, ref root));
    }

    private void Extend(string name, long needed)
    {
        long length = MetadataFormat.HeaderSize + ((needed - MetadataFormat.HeaderSize + Step - 1) / Step * Step);
        _files.Write(name, _journal!, _allocated, new byte[length - _allocated]);
        _allocated = length;
    }

    private void TryExtend(string name)
    {
        try
        {
            Extend(name, _allocated + 1);
        }
        catch (StorageException)
        {
            // There is no room to spare now; what is allocated is used up first.
        }
    }
}
