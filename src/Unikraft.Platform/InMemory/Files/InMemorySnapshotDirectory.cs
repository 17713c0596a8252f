using System.Text.Json;
using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Storage;

namespace Unikraft.Platform.InMemory.Files;

/// <summary>A directory of scripted guests, a file for each.</summary>
internal sealed class InMemorySnapshotDirectory : ISnapshotDirectory
{
    private const string Suffix = ".guest";
    private const string LockName = "lock";

    // What a file system needs for a file beside its content.
    private const long Overhead = 4 << 10;

    private readonly InMemoryHypervisor _hypervisor;
    private readonly DataFiles _files;
    private readonly IDisposable _held;
    private readonly IDiskSpace? _space;
    private readonly Lock _lock = new();
    private readonly HashSet<Guid> _ids = [];
    private bool _isDisposed;

    private InMemorySnapshotDirectory(InMemoryHypervisor hypervisor, DataFiles files, IDisposable held, IDiskSpace? space) =>
        (_hypervisor, _files, _held, _space) = (hypervisor, files, held, space);

    private static ReadOnlySpan<byte> Magic => "UKGUEST\u001a"u8;

    internal static InMemorySnapshotDirectory Open(InMemoryHypervisor hypervisor, DataFiles files, IDiskSpace? space)
    {
        files.MakeDirectory("");
        IDisposable held = files.TryLock(LockName) ?? throw new DataDirectoryInUseException(files.Root);
        InMemorySnapshotDirectory directory = new(hypervisor, files, held, space);
        try
        {
            directory.Scan();
            return directory;
        }
        catch
        {
            held.Dispose();
            throw;
        }
    }

    /// <summary>Files are not read before they are needed, and there is nothing that several need.</summary>
    public IReadOnlyList<SnapshotFileException> DamageFound => [];

    public IReadOnlyList<Guid> List()
    {
        lock (_lock)
        {
            ObjectDisposedException.ThrowIf(_isDisposed, this);
            return [.. _ids];
        }
    }

    public Task<long> SaveAsync(
        Guid id,
        IMachineSnapshot snapshot,
        IProgress<SnapshotProgress>? progress = null,
        CancellationToken cancellationToken = default)
    {
        if (snapshot is not InMemorySnapshot own)
        {
            throw new ArgumentException("The snapshot is of another backend.", nameof(snapshot));
        }

        cancellationToken.ThrowIfCancellationRequested();
        byte[] guest = own.State.Guest.Save() ?? throw new HypervisorException(
            $"The scripted guest '{own.State.Configuration.Image.Name}' cannot be written down. Override {nameof(ScriptedGuest.Save)} and "
            + $"{nameof(ScriptedGuest.Load)}, or set {nameof(PlatformOptions.DataDirectory)} to null.");
        byte[] json = JsonSerializer.SerializeToUtf8Bytes(
            InMemoryState.Of(id, own.State, guest, own.Pause),
            InMemoryStateSerializer.Default.InMemoryState);
        byte[] content = new byte[Magic.Length + Checksum.Size + json.Length];
        Magic.CopyTo(content);
        Checksum.Of(json).Write(content.AsSpan(Magic.Length));
        json.CopyTo(content.AsSpan(Magic.Length + Checksum.Size));
        lock (_lock)
        {
            ObjectDisposedException.ThrowIf(_isDisposed, this);
            if (_ids.Contains(id))
            {
                throw new NameConflictException("A snapshot", id.ToString("D"));
            }
        }

        using IDisposable? reservation = _space?.Reserve(content.Length + Overhead);
        _files.Publish(NameOf(id), content);
        lock (_lock)
        {
            _ids.Add(id);
        }

        progress?.Report(new SnapshotProgress(content.Length, content.Length));
        return Task.FromResult((long)content.Length);
    }

    public Task<IMachineSnapshot> OpenAsync(
        Guid id,
        IProgress<SnapshotProgress>? progress = null,
        CancellationToken cancellationToken = default)
    {
        cancellationToken.ThrowIfCancellationRequested();
        (InMemoryState state, ScriptedGuest guest) = Read(id, progress);
        _hypervisor.OnSnapshotTaken();
        return Task.FromResult<IMachineSnapshot>(new InMemorySnapshot(_hypervisor, state.ToMachineState(guest), state.Depth, state.Pause));
    }

    public Task VerifyAsync(Guid id, IProgress<SnapshotProgress>? progress = null, CancellationToken cancellationToken = default)
    {
        cancellationToken.ThrowIfCancellationRequested();
        Read(id, progress);
        return Task.CompletedTask;
    }

    public Task DeleteAsync(Guid id, CancellationToken cancellationToken = default)
    {
        cancellationToken.ThrowIfCancellationRequested();
        lock (_lock)
        {
            ThrowIfUnknown(id);
        }

        _files.Delete(NameOf(id));
        lock (_lock)
        {
            _ids.Remove(id);
        }

        _files.SyncDirectory("");
        return Task.CompletedTask;
    }

    public IReadOnlyList<string> GetFiles(Guid id)
    {
        lock (_lock)
        {
            ThrowIfUnknown(id);
            return [NameOf(id)];
        }
    }

    public Task AdoptAsync(Guid id, string from, CancellationToken cancellationToken = default)
    {
        cancellationToken.ThrowIfCancellationRequested();
        lock (_lock)
        {
            ObjectDisposedException.ThrowIf(_isDisposed, this);
            if (_ids.Contains(id))
            {
                throw new NameConflictException("A snapshot", id.ToString("D"));
            }
        }

        string source = Path.Combine(Path.GetFullPath(from), NameOf(id));
        if (_files.Stat(source) is not null)
        {
            _files.Rename(source, NameOf(id));
        }
        else if (_files.Stat(NameOf(id)) is null)
        {
            throw Damaged(id, SnapshotFileError.Missing, $"is missing in '{from}'");
        }

        // Else it has its name from an earlier attempt.
        _files.SyncDirectory("");
        lock (_lock)
        {
            _ids.Add(id);
        }

        return Task.CompletedTask;
    }

    public ValueTask DisposeAsync()
    {
        lock (_lock)
        {
            if (!_isDisposed)
            {
                _isDisposed = true;
                _held.Dispose();
            }
        }

        return ValueTask.CompletedTask;
    }

    private static string NameOf(Guid id) => $"{id:D}{Suffix}";

    private void Scan()
    {
        foreach (string name in _files.List(""))
        {
            if (name.EndsWith(DataFiles.TemporarySuffix, StringComparison.Ordinal))
            {
                _files.DeleteIfPossible(name);
            }
            else if (name.EndsWith(Suffix, StringComparison.Ordinal) && Guid.TryParseExact(name.AsSpan(0, name.Length - Suffix.Length), "D", out Guid id))
            {
                _ids.Add(id);
            }
        }
    }

    // Under the lock.
    private void ThrowIfUnknown(Guid id)
    {
        ObjectDisposedException.ThrowIf(_isDisposed, this);
        if (!_ids.Contains(id))
        {
            throw new ResourceNotFoundException("snapshot", id);
        }
    }

    private (InMemoryState State, ScriptedGuest Guest) Read(Guid id, IProgress<SnapshotProgress>? progress)
    {
        lock (_lock)
        {
            ThrowIfUnknown(id);
        }

        byte[] content;
        try
        {
            content = _files.TryRead(NameOf(id)) ?? throw Damaged(id, SnapshotFileError.Missing, "is missing");
        }
        catch (StorageException error) when (DataFiles.IsUnreadable(error))
        {
            throw Damaged(id, SnapshotFileError.Damaged, $"cannot be read: {error.Message}", error);
        }

        if (content.Length < Magic.Length + Checksum.Size || !content.AsSpan().StartsWith(Magic))
        {
            throw Damaged(id, SnapshotFileError.Damaged, "is not the file of a guest");
        }

        ReadOnlySpan<byte> json = content.AsSpan(Magic.Length + Checksum.Size);
        if (Checksum.Of(json) != Checksum.Read(content.AsSpan(Magic.Length)))
        {
            throw Damaged(id, SnapshotFileError.Damaged, "does not have the checksum that it should have");
        }

        try
        {
            InMemoryState state = JsonSerializer.Deserialize(json, InMemoryStateSerializer.Default.InMemoryState)!;
            if (state.Id != id)
            {
                throw Damaged(id, SnapshotFileError.Mismatched, $"holds the snapshot {state.Id:D}");
            }

            ScriptedGuest guest = _hypervisor.MakeGuest(state.Image);
            guest.Load(state.Guest);
            progress?.Report(new SnapshotProgress(content.Length, content.Length));
            return (state, guest);
        }
        catch (Exception error) when (error is JsonException or IOException or NotSupportedException or FormatException or ArgumentException)
        {
            throw Damaged(id, SnapshotFileError.Damaged, $"cannot be read: {error.Message}", error);
        }
    }

    private SnapshotFileException Damaged(Guid id, SnapshotFileError error, string what, Exception? cause = null)
    {
        string path = _files.PathOf(NameOf(id));
        return new SnapshotFileException(error, path, [id], $"The file '{path}' {what}. It is needed by snapshot {id:D}. Put a sound copy of the file there.", cause);
    }
}
