using Microsoft.Win32.SafeHandles;
using Unikraft.Platform.Kvm.Interop;
using Unikraft.Platform.Kvm.Snapshots.Files;

namespace Unikraft.Platform.Kvm.Tests.Snapshots;

/// <summary>
/// The file system of the host, of which it is known what was synced: after a power cut, whatever was not may be there, missing or torn, each write and each name for itself.
/// No file system is that bad, and nothing better is promised.
/// </summary>
internal sealed class PowerCutFileSystem : IFileSystem
{
    private const int SectorSize = 512;

    private readonly HostFileSystem _host = HostFileSystem.Instance;
    private readonly Lock _lock = new();
    private readonly Dictionary<DescriptorHandle, Inode> _open = new(ReferenceEqualityComparer.Instance);
    private readonly Dictionary<string, Inode> _names = new(StringComparer.Ordinal);
    private readonly Dictionary<string, Inode> _syncedNames = new(StringComparer.Ordinal);
    private readonly List<NameChange> _unsyncedNames = [];
    private int _calls;
    private int _syncs;

    /// <summary>The number of the call (from 0) before which the power goes out.</summary>
    internal int CutAt { get; set; } = int.MaxValue;

    /// <summary>
    /// The number of the sync (from 0) that fails, as Linux does it: what it was to take to the disk counts as written, so that the next one succeeds, and never gets there.
    /// </summary>
    internal int FailedSync { get; set; } = int.MaxValue;

    /// <summary>The number of the call (from 0) from which on the process that makes them has ended. What it has written is as it was, and not on the disk for that.</summary>
    internal int KilledAt { get; set; } = int.MaxValue;

    internal bool HasFailed { get; private set; }

    internal bool IsOff { get; private set; }

    internal int Calls => _calls;

    /// <summary>Puts into a directory what the next start finds.</summary>
    internal void CopyTo(string directory, Random random)
    {
        lock (_lock)
        {
            Dictionary<string, Inode> names = new(_syncedNames, StringComparer.Ordinal);
            foreach (NameChange change in _unsyncedNames)
            {
                if (random.Next(2) == 0)
                {
                    change.Apply(names);
                }
            }

            foreach ((string path, Inode inode) in names)
            {
                File.WriteAllBytes(Path.Combine(directory, Path.GetFileName(path)), inode.AfterPowerCut(random));
            }
        }
    }

    /// <summary>Puts into a directory what the next start finds when all names are on the disk, and it is known what has become of each file.</summary>
    internal void CopyTo(string directory, Func<string, WriteFate> fateOf)
    {
        lock (_lock)
        {
            foreach ((string path, Inode inode) in _names)
            {
                string name = Path.GetFileName(path);
                File.WriteAllBytes(Path.Combine(directory, name), inode.After(fateOf(name)));
            }
        }
    }

    public int MakeDirectory(string path) => Do(() => _host.MakeDirectory(path));

    public int List(string path, List<string> names) => Do(() => _host.List(path, names));

    public int Create(string path, out DescriptorHandle file)
    {
        DescriptorHandle? made = null;
        int result = Do(() =>
        {
            int created = _host.Create(path, out made);
            if (created >= 0)
            {
                Inode inode = new();
                _open.Add(made, inode);
                Change(new NameChange(From: null, path, inode));
            }

            return created;
        });
        file = made ?? new DescriptorHandle(-1);
        return result;
    }

    public int OpenRead(string path, out DescriptorHandle file)
    {
        DescriptorHandle? opened = null;
        int result = Do(() => _host.OpenRead(path, out opened));
        file = opened ?? new DescriptorHandle(-1);
        return result;
    }

    public int OpenDirect(string path, out DescriptorHandle file)
    {
        DescriptorHandle? opened = null;
        int result = Do(() =>
        {
            int found = _host.OpenDirect(path, out opened);
            if (found >= 0)
            {
                _open.Add(opened, _names[path]);
            }

            return found;
        });
        file = opened ?? new DescriptorHandle(-1);
        return result;
    }

    public int OpenLocked(string path, out DescriptorHandle file)
    {
        DescriptorHandle? opened = null;
        int result = Do(() => _host.OpenLocked(path, out opened));
        file = opened ?? new DescriptorHandle(-1);
        return result;
    }

    public int Stat(DescriptorHandle file, out FileStamp stamp)
    {
        FileStamp found = default;
        int result = Do(() => _host.Stat(file, out found));
        stamp = found;
        return result;
    }

    public int Read(DescriptorHandle file, Span<byte> buffer, long offset)
    {
        lock (_lock)
        {
            return Step() ? _host.Read(file, buffer, offset) : -Libc.ErrnoInputOutput;
        }
    }

    public int Write(DescriptorHandle file, ReadOnlySpan<byte> buffer, long offset)
    {
        lock (_lock)
        {
            bool isKilled = _calls >= KilledAt;
            if (!Step())
            {
                if (isKilled)
                {
                    return -Libc.ErrnoInputOutput;
                }

                // What was under way may be there in part.
                _open[file].Unsynced.Add((offset, buffer.ToArray()));
                return -Libc.ErrnoInputOutput;
            }

            _open[file].Unsynced.Add((offset, buffer.ToArray()));
            return _host.Write(file, buffer, offset);
        }
    }

    // It promises nothing, so nothing is on the disk for it.
    public int WriteBack(DescriptorHandle file, bool isAwaited) => Do(static () => 0);

    public int Sync(DescriptorHandle file) => Do(() =>
    {
        if (_syncs++ == FailedSync)
        {
            HasFailed = true;
            _open[file].Unsynced.Clear();
            return -Libc.ErrnoInputOutput;
        }

        _open[file].Sync();
        return 0;
    });

    public int SyncData(SafeFileHandle file) => throw new NotSupportedException();

    // What was written over has its place on the disk, and its length does not change: nothing but times is missing.
    public int SyncData(DescriptorHandle file) => Sync(file);

    public int Rename(string from, string to) => Do(() =>
    {
        int result = _host.Rename(from, to);
        if (result >= 0)
        {
            Change(new NameChange(from, to, _names[from]));
        }

        return result;
    });

    public int Delete(string path) => Do(() =>
    {
        int result = _host.Delete(path);
        if (result >= 0)
        {
            Change(new NameChange(From: null, path, Inode: null));
        }

        return result;
    });

    public int SyncDirectory(string path) => Do(() =>
    {
        if (_syncs++ == FailedSync)
        {
            HasFailed = true;
            return -Libc.ErrnoInputOutput;
        }

        foreach (NameChange change in _unsyncedNames)
        {
            change.Apply(_syncedNames);
        }

        _unsyncedNames.Clear();
        return 0;
    });

    private int Do(Func<int> call)
    {
        lock (_lock)
        {
            return Step() ? call() : -Libc.ErrnoInputOutput;
        }
    }

    private bool Step()
    {
        if (_calls >= KilledAt)
        {
            return false;
        }

        IsOff |= _calls == CutAt;
        _calls++;
        return !IsOff;
    }

    private void Change(NameChange change)
    {
        change.Apply(_names);
        _unsyncedNames.Add(change);
    }

    private sealed record NameChange(string? From, string To, Inode? Inode)
    {
        internal void Apply(Dictionary<string, Inode> names)
        {
            if (From is not null)
            {
                names.Remove(From);
            }

            if (Inode is null)
            {
                names.Remove(To);
            }
            else
            {
                names[To] = Inode;
            }
        }
    }

    private sealed class Inode
    {
        private byte[] _synced = [];

        internal List<(long Offset, byte[] Data)> Unsynced { get; } = [];

        internal void Sync()
        {
            Unsynced.ForEach(write => Put(ref _synced, write.Offset, write.Data));
            Unsynced.Clear();
        }

        internal byte[] AfterPowerCut(Random random)
        {
            byte[] content = [.. _synced];
            foreach ((long offset, byte[] data) in Unsynced)
            {
                int fate = random.Next(3);
                for (int start = 0; start < data.Length && fate > 0; start += SectorSize)
                {
                    if (fate == 1 || random.Next(2) == 0)
                    {
                        Put(ref content, offset + start, data.AsSpan(start, Math.Min(SectorSize, data.Length - start)));
                    }
                }
            }

            return content;
        }

        internal byte[] After(WriteFate fate)
        {
            byte[] content = [.. _synced];
            foreach ((long offset, byte[] data) in fate is WriteFate.Lost ? [] : Unsynced)
            {
                for (int start = 0, sector = 0; start < data.Length; start += SectorSize, sector++)
                {
                    if (fate is WriteFate.Written || sector % 2 == 0)
                    {
                        Put(ref content, offset + start, data.AsSpan(start, Math.Min(SectorSize, data.Length - start)));
                    }
                }
            }

            return content;
        }

        private static void Put(ref byte[] content, long offset, ReadOnlySpan<byte> data)
        {
            if (content.Length < offset + data.Length)
            {
                Array.Resize(ref content, (int)offset + data.Length);
            }

            data.CopyTo(content.AsSpan((int)offset));
        }
    }
}
