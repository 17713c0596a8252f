using Microsoft.Extensions.Logging.Abstractions;
using Unikraft.Platform.Kvm.Interop;
using Unikraft.Platform.Kvm.Snapshots;
using Unikraft.Platform.Kvm.Snapshots.Files;

namespace Unikraft.Platform.Kvm.Tests.Snapshots;

/// <summary>The power goes out before every call to the disk in turn: what was saved is there, what was deleted is not, and nothing is half there.</summary>
/// <remarks>Not in the SVM lab: thousands of files, of which KVM knows nothing.</remarks>
[Trait("Lab", "TooLong")]
public sealed class PowerCutTests
{
    private const int Steps = 14;
    private const int Outcomes = 3;

    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    public async Task A_power_cut_at_any_call_loses_nothing_that_was_acknowledged(int seed)
    {
        int completed = 0;
        for (int call = 0; ; call++)
        {
            PowerCutFileSystem files = new() { CutAt = call };
            Model model = new();
            await RunAsync(files, model, seed);
            for (int outcome = 0; outcome < Outcomes; outcome++)
            {
                using TestDirectory after = new();
                files.CopyTo(after.Path, new Random((call * Outcomes) + outcome));
                completed += Directory.GetFiles(after.Path, "*.tmp").Length;
                await CheckAsync(after.Path, model, $"call {call}, outcome {outcome}");
            }

            if (!files.IsOff)
            {
                Assert.InRange(call, 100, int.MaxValue);
                break;
            }
        }

        Assert.InRange(completed, 50, int.MaxValue);
    }

    // Saves and deletes snapshots that share layers, and opens the directory anew in between.
    private static async Task RunAsync(PowerCutFileSystem files, Model model, int seed)
    {
        Random random = new(seed);
        using TestDirectory folder = new();
        using SyntheticGuest guest = new(seed);
        List<KvmSnapshot> snapshots = [];
        try
        {
            SnapshotDirectory? directory = null;
            for (int step = 0; step < Steps && !files.IsOff; step++)
            {
                try
                {
                    directory ??= SnapshotDirectory.Open(files, folder.Path, NullLogger.Instance, CancellationToken.None);
                    int choice = random.Next(6);
                    if (choice == 0)
                    {
                        await directory.DisposeAsync();
                        directory = null;
                    }
                    else if (choice <= 2 && model.Saved.Count > 0)
                    {
                        model.UnderWay = model.Saved.Order().ElementAt(random.Next(model.Saved.Count));
                        await directory.DeleteAsync(model.UnderWay.Value);
                        await directory.Collecting;
                        model.Saved.Remove(model.UnderWay.Value);
                    }
                    else
                    {
                        KvmSnapshot snapshot = guest.CapturePages([.. Enumerable.Range(0, random.Next(1, 6)).Select(_ => random.Next(SyntheticGuest.Pages)).Distinct()]);
                        snapshots.Add(snapshot);
                        byte[] bytes = new byte[16];
                        random.NextBytes(bytes);
                        model.UnderWay = new Guid(bytes);
                        model.Memory[model.UnderWay.Value] = guest.Memory.ToArray();
                        await directory.SaveAsync(model.UnderWay.Value, snapshot);
                        model.Saved.Add(model.UnderWay.Value);
                    }

                    model.UnderWay = files.IsOff ? model.UnderWay : null;
                }
                catch (StorageException) when (files.IsOff)
                {
                    // The power went out.
                }
            }

            if (directory is not null)
            {
                await directory.DisposeAsync();
            }
        }
        finally
        {
            snapshots.ForEach(snapshot => snapshot.Dispose());
        }
    }

    private static async Task CheckAsync(string path, Model model, string context)
    {
        SnapshotDirectory directory = SnapshotDirectory.Open(HostFileSystem.Instance, path, NullLogger.Instance, CancellationToken.None);
        await using (directory.ConfigureAwait(false))
        {
            Guid[] found = [.. directory.List()];
            Assert.True(
                model.Saved.Except(found).All(id => id == model.UnderWay) && found.Except(model.Saved).All(id => id == model.UnderWay),
                $"{context}: saved {string.Join(' ', model.Saved)}, under way {model.UnderWay}, found {string.Join(' ', found)}");
            foreach (Guid id in found)
            {
                await directory.VerifyAsync(id);
                using KvmSnapshot snapshot = (KvmSnapshot)await directory.OpenAsync(id);
                Assert.True(model.Memory[id].AsSpan().SequenceEqual(SyntheticGuest.MemoryOf(snapshot)), $"{context}: {id}");
            }

            foreach (Guid id in found)
            {
                await directory.DeleteAsync(id);
            }

            await directory.Collecting;
            Assert.Equal(["lock"], Directory.GetFiles(path).Select(file => Path.GetFileName(file)));
        }
    }

    private sealed class Model
    {
        internal HashSet<Guid> Saved { get; } = [];

        internal Dictionary<Guid, byte[]> Memory { get; } = [];

        internal Guid? UnderWay { get; set; }
    }
}
