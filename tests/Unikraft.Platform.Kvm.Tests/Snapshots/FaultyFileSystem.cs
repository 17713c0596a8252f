using Microsoft.Win32.SafeHandles;
using Unikraft.Platform.Kvm.Interop;
using Unikraft.Platform.Kvm.Snapshots.Files;

namespace Unikraft.Platform.Kvm.Tests.Snapshots;

/// <summary>The file system of the host, which fails when the test says so.</summary>
internal sealed class FaultyFileSystem : IFileSystem
{
    // What is written past the page cache is written in whole blocks.
    private const int Block = 4096;

    private readonly HostFileSystem _host = HostFileSystem.Instance;
    private readonly Lock _lock = new();
    private readonly List<string> _calls = [];
    private long _bytesRead;

    /// <summary>Given the name and the number (from 0) of a call: its result, or <see langword="null"/> for what the host says.</summary>
    internal Func<string, int, int?>? Fault { get; set; }

    /// <summary>The most bytes that one call reads or writes.</summary>
    internal int LongestTransfer { get; set; } = int.MaxValue;

    /// <summary>Whether the first blocks of a write that fails are written.</summary>
    internal bool IsTearing { get; set; }

    /// <summary>The names of the calls since the last <see cref="Reset"/>.</summary>
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

    internal long BytesRead => Volatile.Read(ref _bytesRead);

    internal void Reset()
    {
        lock (_lock)
        {
            _calls.Clear();
            _bytesRead = 0;
        }
    }

    public int MakeDirectory(string path) => Next(nameof(MakeDirectory)) ?? _host.MakeDirectory(path);

    public int List(string path, List<string> names) => Next(nameof(List)) ?? _host.List(path, names);

    public int Create(string path, out DescriptorHandle file) => Open(nameof(Create), out file, (out DescriptorHandle made) => _host.Create(path, out made));

    public int OpenRead(string path, out DescriptorHandle file) =>
        Open(nameof(OpenRead), out file, (out DescriptorHandle opened) => _host.OpenRead(path, out opened));

    public int OpenDirect(string path, out DescriptorHandle file) =>
        Open(nameof(OpenDirect), out file, (out DescriptorHandle opened) => _host.OpenDirect(path, out opened));

    public int OpenLocked(string path, out DescriptorHandle file) =>
        Open(nameof(OpenLocked), out file, (out DescriptorHandle opened) => _host.OpenLocked(path, out opened));

    public int Stat(DescriptorHandle file, out FileStamp stamp)
    {
        stamp = default;
        return Next(nameof(Stat)) ?? _host.Stat(file, out stamp);
    }

    public int Read(DescriptorHandle file, Span<byte> buffer, long offset)
    {
        int read = Next(nameof(Read)) ?? _host.Read(file, buffer[..Math.Min(buffer.Length, LongestTransfer)], offset);
        Interlocked.Add(ref _bytesRead, Math.Max(0, read));
        return read;
    }

    public int Write(DescriptorHandle file, ReadOnlySpan<byte> buffer, long offset)
    {
        if (Next(nameof(Write)) is { } result)
        {
            if (IsTearing)
            {
                _host.Write(file, buffer[..(buffer.Length / 2 / Block * Block)], offset);
            }

            return result;
        }

        return _host.Write(file, buffer[..Math.Min(buffer.Length, LongestTransfer)], offset);
    }

    public int Sync(DescriptorHandle file) => Next(nameof(Sync)) ?? _host.Sync(file);

    public int WriteBack(DescriptorHandle file, bool isAwaited) => Next(nameof(WriteBack)) ?? _host.WriteBack(file, isAwaited);

    public int SyncData(SafeFileHandle file) => Next(nameof(SyncData)) ?? _host.SyncData(file);

    public int SyncData(DescriptorHandle file) => Next(nameof(SyncData)) ?? _host.SyncData(file);

    public int Rename(string from, string to) => Next(nameof(Rename)) ?? _host.Rename(from, to);

    public int Delete(string path) => Next(nameof(Delete)) ?? _host.Delete(path);

    public int SyncDirectory(string path) => Next(nameof(SyncDirectory)) ?? _host.SyncDirectory(path);

    private int Open(string call, out DescriptorHandle file, Opener open)
    {
        if (Next(call) is { } result)
        {
            file = new DescriptorHandle(-1);
            return result;
        }

        return open(out file);
    }

    private int? Next(string call)
    {
        int number;
        lock (_lock)
        {
            number = _calls.Count;
            _calls.Add(call);
        }

        return Fault?.Invoke(call, number);
    }

    private delegate int Opener(out DescriptorHandle file);
}
