namespace Unikraft.Platform.Storage.Tests.Testing;

/// <summary>
/// A disk in memory that knows what was synced: after a power cut, whatever was not may be there, missing or torn. Every call can be made to fail.
/// </summary>
internal sealed class SimulatedDisk : IFileLayer
{
    private const int SectorSize = 512;
    private const int InUse = 11;
    private const int Exists = 17;
    private const int Interrupted = 4;
    private const int InputOutput = 5;

    private readonly Lock _lock = new();
    private readonly HashSet<string> _directories = new(StringComparer.Ordinal);
    private readonly HashSet<string> _unsyncedDirectories = new(StringComparer.Ordinal);
    private readonly HashSet<string> _locks = new(StringComparer.Ordinal);
    private readonly List<string> _calls = [];
    private readonly Dictionary<string, Inode> _names = new(StringComparer.Ordinal);
    private Dictionary<string, Inode> _syncedNames = new(StringComparer.Ordinal);
    private List<NameChange> _unsyncedNames = [];
    private readonly TaskCompletionSource _off = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private bool _isOff;

    /// <summary>Given the name and the number (from 0) of a call: what goes wrong in it.</summary>
    internal Func<string, int, Fault?>? Faults { get; set; }

    /// <summary>The bytes that fit.</summary>
    internal long Capacity { get; set; } = long.MaxValue;

    /// <summary>Completes when the power goes out.</summary>
    internal Task Off => _off.Task;

    /// <summary>The calls so far.</summary>
    internal IReadOnlyList<string> Calls
    {
        get
        {
            lock (_lock)
            {
                return [.. _calls];
            }
        }
    }

    internal IReadOnlyList<string> Files
    {
        get
        {
            lock (_lock)
            {
                return [.. _names.Keys.Order(StringComparer.Ordinal)];
            }
        }
    }

    internal long Used => _names.Values.Sum(static inode => (long)inode.Content.Length);

    /// <summary>What there is fits, and nothing else.</summary>
    internal void Fill()
    {
        lock (_lock)
        {
            Capacity = Used;
        }
    }

    internal void ResetCalls()
    {
        lock (_lock)
        {
            _calls.Clear();
        }
    }

    /// <summary>The disk as the next start finds it after the process was killed: everything that was written is there.</summary>
    internal SimulatedDisk AfterKill() => Copy(static inode => inode.Share(), _names, _directories);

    /// <summary>The disk as the next start finds it after a power cut.</summary>
    internal SimulatedDisk AfterPowerCut(Random random)
    {
        lock (_lock)
        {
            Dictionary<string, Inode> names = new(_syncedNames, StringComparer.Ordinal);
            foreach (NameChange change in _unsyncedNames)
            {
                // File systems keep the order of names, but nobody promises it.
                if (random.Next(2) == 0)
                {
                    change.Apply(names);
                }
            }

            // With the name of a directory goes all that is in it.
            HashSet<string> directories = new(_directories, StringComparer.Ordinal);
            foreach (string lost in _unsyncedDirectories.Order(StringComparer.Ordinal).Where(_ => random.Next(2) == 0))
            {
                directories.RemoveWhere(directory => IsAtOrIn(directory, lost));
                foreach (string file in names.Keys.Where(file => IsAtOrIn(file, lost)).ToArray())
                {
                    names.Remove(file);
                }
            }

            return Copy(inode => inode.AfterPowerCut(random), names, directories);
        }
    }

    internal byte[] Content(string path)
    {
        lock (_lock)
        {
            return [.. _names[path].Content];
        }
    }

    /// <summary>Changes a file behind everybody's back.</summary>
    internal void Damage(string path, byte[]? content)
    {
        lock (_lock)
        {
            if (content is null)
            {
                _names.Remove(path);
            }
            else
            {
                _names[path] = Inode.Of(content);
            }
        }
    }

    /// <summary>A file is on sectors that cannot be read any more, as long as nobody writes another one.</summary>
    internal void MakeUnreadable(string path)
    {
        lock (_lock)
        {
            _names[path].IsUnreadable = true;
        }
    }

    public void MakeDirectory(string path)
    {
        Enter(nameof(MakeDirectory));
        lock (_lock)
        {
            for (string? level = path; level is { Length: > 1 } && _directories.Add(level); level = Path.GetDirectoryName(level))
            {
                _unsyncedDirectories.Add(level);
            }
        }
    }

    public IReadOnlyList<string> List(string directory)
    {
        Enter(nameof(List));
        lock (_lock)
        {
            return _directories.Contains(directory)
                ? [.. _names.Keys.Where(path => IsIn(path, directory)).Select(path => Path.GetFileName(path)!)]
                : throw new DirectoryNotFoundException(directory);
        }
    }

    public IFile Create(string path)
    {
        Enter(nameof(Create));
        lock (_lock)
        {
            Inode inode = new();
            Change(new NameChange(path, inode, From: null));
            return new OpenFile(this, inode);
        }
    }

    public IFile? Open(string path)
    {
        Enter(nameof(Open));
        lock (_lock)
        {
            return _names.TryGetValue(path, out Inode? inode) ? new OpenFile(this, inode) : null;
        }
    }

    public IFile? OpenShared(string path, bool isReadOnly)
    {
        Enter(nameof(OpenShared));
        lock (_lock)
        {
            return _names.TryGetValue(path, out Inode? inode) ? Share(inode, isReadOnly, path) : null;
        }
    }

    public IFile CreateNew(string path)
    {
        Enter(nameof(CreateNew));
        lock (_lock)
        {
            if (_names.ContainsKey(path))
            {
                throw new IOException($"'{path}' exists", Exists);
            }

            Inode inode = new();
            Change(new NameChange(path, inode, From: null));
            return Share(inode, isReadOnly: false, path);
        }
    }

    public FileStatus? Stat(string path)
    {
        Enter(nameof(Stat));
        lock (_lock)
        {
            return _names.TryGetValue(path, out Inode? inode) ? new FileStatus(IsDirectory: false, IsPlain: true, inode.Content.Length, new DateTime(inode.Writes, DateTimeKind.Utc))
                : path is "/" || _directories.Contains(path) ? new FileStatus(IsDirectory: true, IsPlain: false, 0, default)
                : null;
        }
    }

    public IDisposable? Lock(string path)
    {
        Enter(nameof(Lock));
        lock (_lock)
        {
            return _locks.Add(path) ? new HeldLock(this, path) : null;
        }
    }

    public void Rename(string from, string to)
    {
        Enter(nameof(Rename));
        lock (_lock)
        {
            if (_directories.Contains(from))
            {
                MoveDirectory(from, to);
                return;
            }

            Change(new NameChange(to, _names[from], from));
        }
    }

    public void Delete(string path)
    {
        Enter(nameof(Delete));
        lock (_lock)
        {
            if (_names.ContainsKey(path))
            {
                Change(new NameChange(path, Inode: null, From: null));
            }
        }
    }

    public void DeleteDirectory(string path)
    {
        Enter(nameof(DeleteDirectory));
        lock (_lock)
        {
            foreach (string file in _names.Keys.Where(file => file.StartsWith(path + '/', StringComparison.Ordinal)).ToArray())
            {
                Change(new NameChange(file, Inode: null, From: null));
            }

            _directories.RemoveWhere(directory => IsAtOrIn(directory, path));
            _unsyncedDirectories.RemoveWhere(directory => IsAtOrIn(directory, path));
        }
    }

    public void SyncDirectory(string path)
    {
        Enter(nameof(SyncDirectory));
        lock (_lock)
        {
            foreach (NameChange change in _unsyncedNames.Where(change => IsIn(change.Path, path)))
            {
                change.Apply(_syncedNames);
            }

            _unsyncedNames = [.. _unsyncedNames.Where(change => !IsIn(change.Path, path))];
            _unsyncedDirectories.RemoveWhere(directory => IsIn(directory, path));
        }
    }

    public long FreeBytes(string directory)
    {
        Enter(nameof(FreeBytes));
        lock (_lock)
        {
            return Capacity == long.MaxValue ? long.MaxValue : Math.Max(0, Capacity - Used);
        }
    }

    private static bool IsAtOrIn(string path, string directory) => string.Equals(path, directory, StringComparison.Ordinal) || path.StartsWith(directory + '/', StringComparison.Ordinal);

    private static bool IsIn(string path, string directory) => string.Equals(Path.GetDirectoryName(path), directory, StringComparison.Ordinal);

    private Fault? Enter(string call)
    {
        int number;
        lock (_lock)
        {
            number = _calls.Count;
            if (_isOff)
            {
                throw new PowerCutException();
            }

            _calls.Add(call);
        }

        Fault? fault = Faults?.Invoke(call, number);
        switch (fault)
        {
            case Fault.Error { Errno: var errno }:
                throw new IOException($"errno {errno}", errno);
            case Fault.PowerCut:
                _isOff = true;
                _off.TrySetResult();
                throw new PowerCutException();
            default:
                return fault;
        }
    }

    // A whole subtree has its new name at once, also after a power cut: there is one name, that of the directory.
    private void MoveDirectory(string from, string to)
    {
        foreach (HashSet<string> directories in (HashSet<string>[])[_directories, _unsyncedDirectories])
        {
            foreach (string directory in directories.Where(directory => IsAtOrIn(directory, from)).ToArray())
            {
                directories.Remove(directory);
                directories.Add(to + directory[from.Length..]);
            }
        }

        foreach (Dictionary<string, Inode> names in (Dictionary<string, Inode>[])[_names, _syncedNames])
        {
            foreach (string file in names.Keys.Where(file => file.StartsWith(from + '/', StringComparison.Ordinal)).ToArray())
            {
                names.Remove(file, out Inode? inode);
                names[to + file[from.Length..]] = inode!;
            }
        }

        _unsyncedNames = [.. _unsyncedNames.Select(change => change.Path.StartsWith(from + '/', StringComparison.Ordinal) ? change with { Path = to + change.Path[from.Length..] } : change)];
    }

    private OpenFile Share(Inode inode, bool isReadOnly, string path)
    {
        if (isReadOnly ? inode.Readers < 0 : inode.Readers != 0)
        {
            throw new IOException($"'{path}' is in use", InUse);
        }

        inode.Readers = isReadOnly ? inode.Readers + 1 : -1;
        return new OpenFile(this, inode) { Shares = isReadOnly };
    }

    private void Change(NameChange change)
    {
        change.Apply(_names);
        _unsyncedNames.Add(change);
    }

    private SimulatedDisk Copy(Func<Inode, byte[]> content, Dictionary<string, Inode> names, HashSet<string> directories)
    {
        lock (_lock)
        {
            SimulatedDisk copy = new() { Capacity = Capacity };
            copy._directories.UnionWith(directories);
            foreach ((string path, Inode inode) in names)
            {
                copy._names.Add(path, Inode.Of(content(inode)));
            }

            copy._syncedNames = new(copy._names, StringComparer.Ordinal);
            return copy;
        }
    }

    private sealed record NameChange(string Path, Inode? Inode, string? From)
    {
        internal void Apply(Dictionary<string, Inode> names)
        {
            if (From is not null)
            {
                names.Remove(From);
            }

            if (Inode is null)
            {
                names.Remove(Path);
            }
            else
            {
                names[Path] = Inode;
            }
        }
    }

    private sealed class Inode
    {
        // Whether somebody else has these bytes too, who is not to see what is written.
        private bool _isShared;
        private bool _isSyncedShared;

        internal byte[] Content { get; set; } = [];

        internal byte[] Synced { get; set; } = [];

        internal static Inode Of(byte[] content) => new() { Content = content, Synced = content, _isShared = true, _isSyncedShared = true };

        /// <summary>The content, for somebody who keeps it as it is now.</summary>
        internal byte[] Share()
        {
            _isShared = true;
            return Content;
        }

        /// <summary>The content, to write to.</summary>
        internal byte[] Own()
        {
            if (_isShared)
            {
                (Content, _isShared) = ([.. Content], false);
            }

            return Content;
        }

        /// <summary>What was synced, to write to.</summary>
        internal byte[] OwnSynced()
        {
            if (_isSyncedShared)
            {
                (Synced, _isSyncedShared) = ([.. Synced], false);
            }

            return Synced;
        }

        /// <summary>What was written since the last sync; without data, what the length was made.</summary>
        internal List<(long Offset, byte[]? Data)> Unsynced { get; } = [];

        /// <summary>How many have it open to read; -1 for one that writes.</summary>
        internal int Readers { get; set; }

        /// <summary>Whether the disk cannot read it.</summary>
        internal bool IsUnreadable { get; set; }

        /// <summary>How often it was written to.</summary>
        internal long Writes { get; set; }

        internal byte[] AfterPowerCut(Random random)
        {
            byte[] content = [.. Synced];
            foreach ((long offset, byte[]? data) in Unsynced)
            {
                switch (random.Next(3))
                {
                    case 0:
                        break;
                    case 1:
                        Apply(ref content, offset, data);
                        break;
                    case 2 when data is null:
                        break;
                    default:
                        PutSectors(ref content, offset, data!, random);
                        break;
                }
            }

            return content;
        }

        internal static void Apply(ref byte[] content, long offset, byte[]? data)
        {
            if (data is null)
            {
                Array.Resize(ref content, (int)offset);
            }
            else
            {
                Put(ref content, offset, data);
            }
        }

        internal static void Put(ref byte[] content, long offset, ReadOnlySpan<byte> data)
        {
            if (content.Length < offset + data.Length)
            {
                Array.Resize(ref content, (int)offset + data.Length);
            }

            data.CopyTo(content.AsSpan((int)offset));
        }

        private static void PutSectors(ref byte[] content, long offset, byte[] data, Random random)
        {
            for (long position = offset; position < offset + data.Length;)
            {
                long end = Math.Min(offset + data.Length, (position / SectorSize * SectorSize) + SectorSize);
                if (random.Next(2) == 0)
                {
                    Put(ref content, position, data.AsSpan((int)(position - offset), (int)(end - position)));
                }

                position = end;
            }
        }
    }

    private sealed class OpenFile(SimulatedDisk disk, Inode inode) : IFile
    {
        private bool _isClosed;

        /// <summary>Whether others may read meanwhile; <see langword="null"/> when it keeps nobody out.</summary>
        internal bool? Shares { get; init; }

        public long Length
        {
            get
            {
                lock (disk._lock)
                {
                    return inode.Content.Length;
                }
            }
        }

        public int Read(long offset, Span<byte> buffer)
        {
            Fault? fault = disk.Enter(nameof(Read));
            lock (disk._lock)
            {
                if (inode.IsUnreadable)
                {
                    throw new IOException("Input/output error", InputOutput);
                }

                int length = (int)Math.Clamp(inode.Content.Length - offset, 0, buffer.Length);
                length = fault is Fault.Short && length > 1 ? length / 2 : length;
                inode.Content.AsSpan((int)offset, length).CopyTo(buffer);
                return length;
            }
        }

        public int Write(long offset, ReadOnlySpan<byte> data)
        {
            Fault? fault = disk.Enter(nameof(Write));
            lock (disk._lock)
            {
                long grown = Math.Max(0, offset + data.Length - inode.Content.Length);
                if (grown > 0 && disk.Used + grown > disk.Capacity)
                {
                    throw new IOException("No space left on device", 28);
                }

                int length = fault is not null && data.Length > 1 ? data.Length / 2 : data.Length;
                byte[] content = inode.Own();
                Inode.Put(ref content, offset, data[..length]);
                inode.Content = content;
                inode.Writes++;
                inode.Unsynced.Add((offset, data[..length].ToArray()));
                return fault is Fault.Torn torn ? throw new IOException("torn", torn.Errno) : length;
            }
        }

        public void SetLength(long length)
        {
            disk.Enter(nameof(SetLength));
            lock (disk._lock)
            {
                if (disk.Used + length - inode.Content.Length > disk.Capacity)
                {
                    throw new IOException("No space left on device", 28);
                }

                byte[] content = inode.Own();
                Inode.Apply(ref content, length, data: null);
                inode.Content = content;
                inode.Writes++;
                inode.Unsynced.Add((length, null));
            }
        }

        public void Sync()
        {
            try
            {
                disk.Enter(nameof(Sync));
            }
            catch (IOException error) when (error.HResult != Interrupted)
            {
                // As Linux does it: the pages count as written, so that the next sync succeeds, and what is in them never reaches the disk.
                lock (disk._lock)
                {
                    inode.Unsynced.Clear();
                }

                throw;
            }

            lock (disk._lock)
            {
                if (inode.Unsynced.Count > 0)
                {
                    byte[] synced = inode.OwnSynced();
                    foreach ((long offset, byte[]? data) in inode.Unsynced)
                    {
                        Inode.Apply(ref synced, offset, data);
                    }

                    inode.Synced = synced;
                    inode.Unsynced.Clear();
                }
            }
        }

        public void Dispose()
        {
            lock (disk._lock)
            {
                if (Shares is { } isReader && !_isClosed)
                {
                    _isClosed = true;
                    inode.Readers = isReader ? inode.Readers - 1 : 0;
                }
            }
        }
    }

    private sealed class HeldLock(SimulatedDisk disk, string path) : IDisposable
    {
        public void Dispose()
        {
            lock (disk._lock)
            {
                disk._locks.Remove(path);
            }
        }
    }
}
