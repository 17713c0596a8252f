namespace Unikraft.Platform.Storage.Tests.Testing;

/// <summary>
/// A disk in memory that knows what was synced: after a power cut, whatever was not may be there, missing or torn. Every call can be made to fail.
/// </summary>
internal sealed class SimulatedDisk : IFileLayer
{
    private const int SectorSize = 512;

    private readonly Lock _lock = new();
    private readonly HashSet<string> _directories = new(StringComparer.Ordinal);
    private readonly HashSet<string> _locks = new(StringComparer.Ordinal);
    private readonly List<string> _calls = [];
    private readonly Dictionary<string, Inode> _names = new(StringComparer.Ordinal);
    private Dictionary<string, Inode> _syncedNames = new(StringComparer.Ordinal);
    private List<NameChange> _unsyncedNames = [];
    private bool _isOff;

    /// <summary>Given the name and the number (from 0) of a call: what goes wrong in it.</summary>
    internal Func<string, int, Fault?>? Faults { get; set; }

    /// <summary>The bytes that fit.</summary>
    internal long Capacity { get; set; } = long.MaxValue;

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

    private long Used => _names.Values.Sum(static inode => (long)inode.Content.Length);

    internal void ResetCalls()
    {
        lock (_lock)
        {
            _calls.Clear();
        }
    }

    /// <summary>The disk as the next start finds it after the process was killed: everything that was written is there.</summary>
    internal SimulatedDisk AfterKill() => Copy(static inode => inode.Content, _names);

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

            return Copy(inode => inode.AfterPowerCut(random), names);
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
                _names[path] = new Inode { Content = content, Synced = [.. content] };
            }
        }
    }

    public void MakeDirectory(string path)
    {
        Enter(nameof(MakeDirectory));
        lock (_lock)
        {
            _directories.Add(path);
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
                throw new PowerCutException();
            default:
                return fault;
        }
    }

    private void Change(NameChange change)
    {
        change.Apply(_names);
        _unsyncedNames.Add(change);
    }

    private SimulatedDisk Copy(Func<Inode, byte[]> content, Dictionary<string, Inode> names)
    {
        lock (_lock)
        {
            SimulatedDisk copy = new() { Capacity = Capacity };
            copy._directories.UnionWith(_directories);
            foreach ((string path, Inode inode) in names)
            {
                byte[] bytes = [.. content(inode)];
                copy._names.Add(path, new Inode { Content = bytes, Synced = [.. bytes] });
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
        internal byte[] Content { get; set; } = [];

        internal byte[] Synced { get; set; } = [];

        internal List<(long Offset, byte[] Data)> Unsynced { get; } = [];

        internal byte[] AfterPowerCut(Random random)
        {
            byte[] content = [.. Synced];
            foreach ((long offset, byte[] data) in Unsynced)
            {
                switch (random.Next(3))
                {
                    case 0:
                        break;
                    case 1:
                        Put(ref content, offset, data);
                        break;
                    default:
                        PutSectors(ref content, offset, data, random);
                        break;
                }
            }

            return content;
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
                byte[] content = inode.Content;
                Inode.Put(ref content, offset, data[..length]);
                inode.Content = content;
                inode.Unsynced.Add((offset, data[..length].ToArray()));
                return fault is Fault.Torn torn ? throw new IOException("torn", torn.Errno) : length;
            }
        }

        public void Sync()
        {
            disk.Enter(nameof(Sync));
            lock (disk._lock)
            {
                byte[] synced = inode.Synced;
                foreach ((long offset, byte[] data) in inode.Unsynced)
                {
                    Inode.Put(ref synced, offset, data);
                }

                inode.Synced = synced;
                inode.Unsynced.Clear();
            }
        }

        public void Dispose()
        {
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
