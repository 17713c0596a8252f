using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Kvm.Interop;
using Unikraft.Platform.Kvm.Snapshots;
using Unikraft.Platform.Kvm.Snapshots.Files;
using Unikraft.Platform.Kvm.Tests.Testing;
using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Kvm.Tests.Snapshots;

/// <summary>A test with a publication log that is small, and time that does not pass.</summary>
public abstract class PublicationLogTest : SnapshotFilesTest
{
    private protected const int Length = 1 << 20;
    private protected const int Longer = 2 * Length;

    private protected TestSpace? Space { get; set; }

    private protected string LogPath => Path.Combine(Folder.Path, LogFormat.Name);

    private protected static async Task AssertSoundAsync(SnapshotDirectory directory, Guid id, byte[] memory)
    {
        await directory.VerifyAsync(id).Guarded();
        using KvmSnapshot opened = await OpenAsync(directory, id);
        Assert.True(memory.AsSpan().SequenceEqual(SyntheticGuest.MemoryOf(opened)));
    }

    private protected static async Task<(Guid Id, byte[] Memory)> SaveAsync(SnapshotDirectory directory, SyntheticGuest guest, params int[] pages)
    {
        using KvmSnapshot snapshot = guest.CapturePages(pages);
        return (await SaveAsync(directory, snapshot), guest.Memory.ToArray());
    }

    /// <summary>All that was saved is there after a kill.</summary>
    private protected async Task AssertSoundAfterKillAsync(IEnumerable<(Guid Id, byte[] Memory)> saved)
    {
        using TestDirectory killed = Copy();
        await using SnapshotDirectory again = await OpenDirectoryAsync(killed.Path);
        foreach ((Guid id, byte[] memory) in saved)
        {
            await AssertSoundAsync(again, id, memory);
        }
    }

    /// <summary>Closes a directory in which everything was deleted: no file remains.</summary>
    private protected async Task AssertEmptiesAsync(SnapshotDirectory directory)
    {
        foreach (Guid id in directory.List())
        {
            await directory.DeleteAsync(id);
        }

        await directory.Collecting.Guarded();
        await directory.DisposeAsync();
        Assert.Empty(Folder.Files);
    }

    private protected Task<SnapshotDirectory> OpenAsync(int threshold, TimeProvider? time = null) => Task.FromResult(OpenAt(Folder.Path, threshold, time));

    private protected SnapshotDirectory OpenAt(string path, int threshold, TimeProvider? time = null) => SnapshotDirectory.Open(
        FileSystem,
        path,
        Microsoft.Extensions.Logging.Abstractions.NullLogger.Instance,
        new PublicationLogOptions(time ?? new ManualTimeProvider()) { Length = Length, MaxLength = Longer, Threshold = threshold },
        Space,
        CancellationToken.None);

    // With a log, and two snapshots that were saved before there was one.
    private protected async Task<SnapshotDirectory> OpenWithLogAsync(SyntheticGuest guest, TimeProvider? time = null)
    {
        SnapshotDirectory directory = await OpenAsync(threshold: 2, time);
        await SaveAsync(directory, guest, 0, 1, 2, 3, 4, 5);
        await SaveAsync(directory, guest, 5, 6);
        await directory.Preparing.Guarded();
        Assert.True(File.Exists(LogPath));
        return directory;
    }

    private protected string ReadLogHeader() => Convert.ToHexString(File.ReadAllBytes(LogPath).AsSpan(0, LogFormat.Block));

    /// <summary>What a host that is killed now leaves.</summary>
    /// <param name="log">What is in its log, if not what is in it now.</param>
    private protected TestDirectory Copy(byte[]? log = null)
    {
        TestDirectory copy = new();
        foreach (string path in Directory.GetFiles(Folder.Path))
        {
            string name = Path.GetFileName(path);
            if (name is "lock")
            {
                // A start makes its own; this one is held.
                continue;
            }

            if (log is not null && name is LogFormat.Name)
            {
                File.WriteAllBytes(Path.Combine(copy.Path, name), log);
            }
            else
            {
                File.Copy(path, Path.Combine(copy.Path, name));
            }
        }

        return copy;
    }

    private protected sealed class TestSpace : IDiskSpace
    {
        private readonly Lock _lock = new();

        internal long Free { get; set; }

        internal long Largest { get; set; } = long.MaxValue;

        internal long Reserved { get; private set; }

        internal Action? Refused { get; set; }

        public IDisposable Reserve(long bytes)
        {
            lock (_lock)
            {
                if (Free - Reserved < bytes || bytes > Largest)
                {
                    // What was on the disk may go meanwhile.
                    Refused?.Invoke();
                    if (Free - Reserved < bytes || bytes > Largest)
                    {
                        throw new StorageException("disk", "full", isFull: true);
                    }
                }

                Reserved += bytes;
                return new Reservation(this, bytes);
            }
        }

        private sealed class Reservation(TestSpace space, long bytes) : IDisposable
        {
            public void Dispose()
            {
                lock (space._lock)
                {
                    space.Reserved -= bytes;
                }
            }
        }
    }
}
