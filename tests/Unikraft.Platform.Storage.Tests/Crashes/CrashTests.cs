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

    /// <summary>Places that no script passes, and why.</summary>
    private static readonly Dictionary<string, string> Elsewhere = new(StringComparer.Ordinal)
    {
        ["Sync@VolumeJournal.PutAside"] = nameof(A_process_killed_while_it_puts_a_damaged_journal_aside_loses_nothing_of_it),
        ["Rename@VolumeJournal.PutAside"] = nameof(A_process_killed_while_it_puts_a_damaged_journal_aside_loses_nothing_of_it),
        ["Delete@VolumeJournal.PutAside"] = nameof(A_process_killed_while_it_puts_a_damaged_journal_aside_loses_nothing_of_it),
        ["SyncDirectory@VolumeJournal.PutAside"] = nameof(A_process_killed_while_it_puts_a_damaged_journal_aside_loses_nothing_of_it),
        ["Rename@VolumeJournal.Rewrite"] = "Of a journal longer than a MiB: VolumeJournalTests ends the host at each call of it.",
        ["Delete@VolumeJournal.Rewrite"] = "Of such a journal, and only after a call that failed: VolumeJournalTests fails each call. No host is ended just there.",
        ["Sync@VolumeJournal.GoOn"] = "On a full disk only: VolumeJournalTests ends the host there.",
        ["DeleteDirectory@ImageDirectory.Dispose"] = "Volumes without a directory of their own are no part of a data directory.",
        ["SyncDirectory@ImageDirectory.SyncNames"] = "The backend in memory cannot sync directories; that of KVM can, and is killed there.",
    };

    /// <summary>A log is written anew when writing to it has failed.</summary>
    private static readonly string[] AfterFailure =
    [
        "!Sync@KeptLogs.Append>Sync@KeptLogs.Rewrite",
        "!Sync@KeptLogs.Append>Rename@KeptLogs.Rewrite",
        "!Sync@KeptLogs.Append>SyncDirectory@KeptLogs.Rewrite",
        "!Sync@KeptLogs.Append>!Rename@KeptLogs.Rewrite>Delete@KeptLogs.Rewrite",
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
        int wanted = Count(KillPoints, otherwise: 24);
        bool isEveryPlace = wanted >= CrashHarness.Sampled;
        IReadOnlySet<string> places = CallSites.Of(typeof(IFileLayer).Assembly);
        if (isEveryPlace)
        {
            await _harness.KillAtPlacesAsync(AfterFailure);
            await _harness.KillAgainAsync(places.Except(_harness.StoppedAt).Except(Elsewhere.Keys));
        }

        await _harness.KillAtPointsAsync(wanted);
        _output.WriteLine($"{_harness.Reached.Count} distinct points of {_harness.Aimed} were reached, at {_harness.StoppedAt.Count(CallSites.IsSite)} places that sync, rename or remove");
        Assert.True(_harness.Reached.Count >= wanted, $"{_harness.Reached.Count} points were reached");
        if (isEveryPlace)
        {
            string[] missed = [.. places.Union(_harness.Seen).Except(_harness.StoppedAt).Except(Elsewhere.Keys).Order(StringComparer.Ordinal)];
            Assert.True(missed.Length == 0, $"nothing was killed at {string.Join(' ', missed)}");
        }
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

        Assert.Equal(points.Select(static point => point[(point.LastIndexOf('>') + 1)..]), await CrashHarness.KillAtStartAsync("memory", directories.Zip(points)));
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
    public Task A_process_killed_at_any_time_loses_nothing_that_was_acknowledged() => _harness.KillAtAnyTimeAsync(Count(KillTimes, otherwise: 8));

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

    private static int Count(string variable, int otherwise) =>
        int.TryParse(Environment.GetEnvironmentVariable(variable), out int count) ? count : otherwise;
}
