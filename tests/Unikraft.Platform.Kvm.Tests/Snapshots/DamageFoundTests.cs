using Microsoft.Extensions.Logging.Abstractions;
using Unikraft.Platform.Kvm.Interop;
using Unikraft.Platform.Kvm.Snapshots;
using Unikraft.Platform.Kvm.Snapshots.Files;
using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Kvm.Tests.Snapshots;

/// <summary>What a directory of snapshots knows to be damaged when it is opened, without having read it all.</summary>
public sealed class DamageFoundTests : SnapshotFilesTest
{
    [Fact]
    public async Task What_an_opening_sees_is_what_whoever_opens_a_snapshot_is_told()
    {
        Guid[] ids = new Guid[3];
        using SyntheticGuest guest = new(seed: 5);
        await using (SnapshotDirectory directory = await OpenDirectoryAsync())
        {
            for (int i = 0; i < ids.Length; i++)
            {
                using KvmSnapshot snapshot = guest.CapturePages(i, 10 + i);
                ids[i] = await SaveAsync(directory, snapshot);
            }
        }

        int shared = 0;
        foreach (string name in Folder.Files)
        {
            string path = Path.Combine(Folder.Path, name);
            byte[] content = await File.ReadAllBytesAsync(path);
            bool isState = name.EndsWith(StateFile.Suffix, StringComparison.Ordinal);
            if (isState)
            {
                byte[] changed = [.. content];
                changed[^1] ^= 1;
                await File.WriteAllBytesAsync(path, changed);
            }
            else
            {
                File.Delete(path);
            }

            await using (SnapshotDirectory directory = await OpenDirectoryAsync())
            {
                SnapshotFileException found = Assert.Single(directory.DamageFound);
                Assert.Equal((path, isState ? SnapshotFileError.Damaged : SnapshotFileError.Missing), (found.Path, found.Error));
                List<Guid> refused = [];
                foreach (Guid id in ids)
                {
                    if (await Record.ExceptionAsync(() => directory.OpenAsync(id)) is SnapshotFileException error)
                    {
                        Assert.Equal((found.Path, found.Message), (error.Path, error.Message));
                        refused.Add(id);
                    }
                }

                Assert.Equal(refused.Order(), found.Snapshots.Order());
                Assert.InRange(refused.Count, 1, isState ? 1 : ids.Length);
                shared += refused.Count > 1 ? 1 : 0;
            }

            await File.WriteAllBytesAsync(path, content);
        }

        Assert.InRange(shared, 1, int.MaxValue);
        await using SnapshotDirectory whole = await OpenDirectoryAsync();
        Assert.Empty(whole.DamageFound);
    }

    [Fact]
    public async Task A_read_that_fails_while_a_directory_is_opened_is_told_of_or_harmless()
    {
        PublicationLogOptions options = new(new ManualTimeProvider()) { Length = 128 << 10, MaxLength = 128 << 10, Threshold = 1 };
        using SyntheticGuest guest = new(seed: 6);
        Dictionary<Guid, byte[]> memory = [];
        using TestDirectory left = new();
        await using (SnapshotDirectory directory = SnapshotDirectory.Open(FileSystem, Folder.Path, NullLogger.Instance, options, space: null, CancellationToken.None))
        {
            for (int i = 0; i < 4; i++)
            {
                using KvmSnapshot snapshot = guest.CapturePages(i, 10 + i);
                memory.Add(await SaveAsync(directory, snapshot), guest.Memory.ToArray());
                await directory.Preparing;
            }

            // As a process leaves them that is killed now.
            Copy(Folder, left);
        }

        Assert.True(File.Exists(Path.Combine(left.Path, LogFormat.Name)));
        int told = 0;
        bool isReached = true;
        for (int read = 0; isReached; read++)
        {
            using TestDirectory folder = new();
            Copy(left, folder);
            int seen = 0;
            isReached = false;
            FaultyFileSystem files = new();
            files.Fault = (call, _) =>
            {
                bool isIt = call is "Read" && Interlocked.Increment(ref seen) == read + 1;
                isReached |= isIt;
                return isIt ? -Libc.ErrnoInputOutput : null;
            };
            await using SnapshotDirectory directory = SnapshotDirectory.Open(files, folder.Path, NullLogger.Instance, logOptions: null, space: null, CancellationToken.None);
            files.Fault = null;
            foreach ((Guid id, byte[] expected) in memory)
            {
                try
                {
                    using KvmSnapshot snapshot = await OpenAsync(directory, id);
                    Assert.True(expected.AsSpan().SequenceEqual(SyntheticGuest.MemoryOf(snapshot)), $"read {read}: {id}");
                }
                catch (PlatformException error) when (error is SnapshotFileException or ResourceNotFoundException)
                {
                    Assert.NotEmpty(directory.DamageFound);
                }
            }

            Assert.True(isReached || directory.DamageFound.Count == 0, string.Join(' ', directory.DamageFound.Select(static damage => damage.Message)));
            told += directory.DamageFound.Count > 0 ? 1 : 0;
        }

        Assert.InRange(told, 2, int.MaxValue);
    }

    private static void Copy(TestDirectory from, TestDirectory to)
    {
        foreach (string file in Directory.GetFiles(from.Path).Where(static file => Path.GetFileName(file) is not "lock"))
        {
            File.Copy(file, Path.Combine(to.Path, Path.GetFileName(file)));
        }
    }
}
