using Unikraft.Platform.Contracts;
using Unikraft.Platform.Contracts.Crashes;
using Unikraft.Platform.CrashChild;
using Unikraft.Platform.InMemory;
using Unikraft.Platform.TestKit;
using Unikraft.Platform.Volumes;

namespace Unikraft.Platform.Storage.Tests.Crashes;

/// <summary>Real processes that are killed, and what they leave behind. How many is set by the environment.</summary>
public sealed class CrashTests : IDisposable
{
    private const string KillPoints = "UNIKRAFT_KILL_POINTS";
    private const string KillTimes = "UNIKRAFT_KILL_TIMES";

    /// <summary>What is no part of a data directory: the images of volumes that are kept nowhere; and what only the backend of KVM can do, whose processes are killed by tests of their own.</summary>
    private static readonly string[] NotHere = ["DeleteDirectory@ImageDirectory.Dispose", "SyncDirectory@ImageDirectory.Sync"];

    /// <summary>A log is written anew when writing to it has failed; of a journal of volumes nothing is left over but then; and on a full disk the one that was found is used.</summary>
    private static readonly (string Call, int Number)[] AfterFailure =
    [
        ("!Sync@KeptLogs.Append>Sync@KeptLogs.Rewrite", 1),
        ("!Sync@KeptLogs.Append>Rename@KeptLogs.Rewrite", 1),
        ("!Sync@KeptLogs.Append>SyncDirectory@KeptLogs.Rewrite", 1),
        ("!Sync@KeptLogs.Append>!Rename@KeptLogs.Rewrite>Delete@KeptLogs.Rewrite", 1),
        ("!Rename@VolumeJournal.Rewrite>Delete@VolumeJournal.Rewrite", 1),

        // The first start has synced two, and is none that finds one.
        ("!!Sync@VolumeJournal.Write>Sync@VolumeJournal.GoOn", 3),
    ];

    private readonly Xunit.Abstractions.ITestOutputHelper _output;
    private readonly string _folder = Directory.CreateTempSubdirectory("crashes-").FullName;
    private readonly CrashHarness _harness;

    public CrashTests(Xunit.Abstractions.ITestOutputHelper output)
    {
        _output = output;
        _harness = new CrashHarness(
            _folder,
            guests: "memory",
            Open);
    }

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [Fact]
    public async Task A_process_killed_at_a_call_to_the_disk_loses_nothing_that_was_acknowledged()
    {
        // None of the scripts meets a journal of volumes that is damaged.
        await A_process_killed_while_it_puts_a_damaged_journal_aside_loses_nothing_of_it();
        await _harness.KillAtCallsAsync(
            CrashHarness.Count(KillPoints, otherwise: 24),
            [.. CallSites.Of(typeof(IFileLayer).Assembly).Except(NotHere, StringComparer.Ordinal)],
            AfterFailure,
            _output.WriteLine);
    }

    [Fact]
    public async Task A_process_killed_while_it_puts_a_damaged_journal_aside_loses_nothing_of_it()
    {
        string[] points = ["Sync@VolumeJournal.PutAside", "Rename@VolumeJournal.PutAside", "SyncDirectory@VolumeJournal.PutAside", "!Rename@VolumeJournal.PutAside>Delete@VolumeJournal.PutAside"];
        string sound = Path.Combine(_folder, "sound");
        string journal = Path.Combine("volumes", VolumeJournal.FileName);
        await using (UnikraftPlatform platform = Open(sound))
        {
            await platform.Volumes.CreateAsync(new CreateVolumeRequest { Name = "first", SizeMb = 1, Filesystem = VolumeFilesystem.None }).Guarded();
            await platform.Volumes.CreateAsync(new CreateVolumeRequest { Name = "second", SizeMb = 1, Filesystem = VolumeFilesystem.None }).Guarded();
            await platform.Volumes.CloneAsync("first", new CloneVolumeRequest { Name = "third" }).Guarded();
        }

        Assert.Empty(await LeftImages.FindProblemsAsync(sound).Guarded());

        // A line in the middle is that of a change which nothing else tells.
        byte[] damaged = await File.ReadAllBytesAsync(Path.Combine(sound, journal));
        int line = damaged.AsSpan().LastIndexOf("first"u8);
        damaged[line] ^= 1;
        string[] directories = [.. points.Select((_, number) => Path.Combine(_folder, $"{number}"))];
        foreach (string directory in directories)
        {
            foreach (string file in Directory.EnumerateFiles(sound, "*", SearchOption.AllDirectories))
            {
                string copy = Path.Combine(directory, Path.GetRelativePath(sound, file));
                Directory.CreateDirectory(Path.GetDirectoryName(copy)!);
                File.Copy(file, copy);
            }

            await File.WriteAllBytesAsync(Path.Combine(directory, journal), damaged);
        }

        Assert.Equal(points.Select(static point => point[(point.LastIndexOf('>') + 1)..]), await _harness.KillAtStartAsync(directories.Zip(points)));
        foreach (string directory in directories)
        {
            await using UnikraftPlatform platform = Open(directory);
            string[] aside = Directory.GetFiles(Path.Combine(directory, "volumes"), VolumeJournal.FileName + ".damaged*");
            Assert.Contains(aside, file => platform.Volumes.Get("first").Error!.Contains(file, StringComparison.Ordinal));
            Assert.All(aside, file => Assert.Equal(damaged, File.ReadAllBytes(file)));
            Assert.Equal(["first", "second", "third"], platform.Volumes.List().Select(static volume => volume.Name).Order(StringComparer.Ordinal));
        }
    }

    [Fact]
    public Task A_process_killed_at_any_time_loses_nothing_that_was_acknowledged() => _harness.KillAtAnyTimeAsync(CrashHarness.Count(KillTimes, otherwise: 8));

    [Fact]
    public async Task Of_eight_processes_one_gets_the_directory()
    {
        string directory = Path.Combine(_folder, "race");
        for (int round = 0; round < 2; round++)
        {
            CrashProcess[] children = [.. Enumerable.Range(0, 8).Select(_ => CrashProcess.Hold(directory))];
            try
            {
                string?[] answers = await Task.WhenAll(children.Select(child => child.Output.ReadLineAsync().WaitAsync(TimeSpan.FromSeconds(60))));
                Assert.Equal(1, answers.Count(answer => answer is "held"));
                Assert.Equal(7, answers.Count(answer => answer is "refused"));
                // The one that has it is killed, which frees it for the next round.
                children[Array.IndexOf(answers, "held")].Process.Kill();
            }
            finally
            {
                foreach (CrashProcess child in children)
                {
                    child.Dispose();
                }
            }
        }
    }

    /// <summary>Where .NET takes no locks and says nothing, a second platform would not be noticed.</summary>
    [Fact]
    public async Task Where_files_cannot_be_locked_a_directory_is_refused()
    {
        string directory = Path.Combine(_folder, "unlocked");
        using CrashProcess child = CrashProcess.Hold(directory, locksFiles: false);

        string? answer = await child.Output.ReadLineAsync().WaitAsync(TimeSpan.FromSeconds(60));

        Assert.StartsWith($"Locking '{Path.Combine(directory, "lock")}' failed: files are not locked here", answer, StringComparison.Ordinal);
        Assert.Equal([Path.Combine(directory, "lock")], Directory.GetFileSystemEntries(directory));
    }

    private static UnikraftPlatform Open(string directory) => (UnikraftPlatform)new UnikraftPlatformBuilder().Configure(options => options.DataDirectory = directory).UseInMemory().Build();
}
