using System.Globalization;
using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Contracts.Crashes;

/// <summary>Kills processes at the calls by which they touch the disk, and at random times, and checks what they leave behind.</summary>
/// <param name="folder">Where the directories are made.</param>
/// <param name="guests">The folder of the guests for real machines, or <c>memory</c>.</param>
/// <param name="open">Opens a platform on a data directory.</param>
public sealed class CrashHarness(string folder, string guests, Func<string, IUnikraftPlatform> open)
{
    private const int Operations = 40;

    /// <summary>How many directories share a process, which starts more slowly than all else.</summary>
    private const int Together = 8;

    /// <summary>How many do when the kill comes at any time: each is somewhere else in what it does. One alone, so that each has a moment of its own, when the environment asks for it.</summary>
    private static readonly int TogetherAtAnyTime = Environment.GetEnvironmentVariable("UNIKRAFT_KILL_TIMES_ALONE") is "1" ? 1 : 4;

    /// <summary>One in so many of the calls that only prepare what others take to the disk.</summary>
    private const int Spacing = 7;

    /// <summary>Fewer points than that are some of everything; so many are at every place as well.</summary>
    private const int Sampled = 200;

    /// <summary>QEMU judges the images of so many crashes, and of one in so many of the others: it takes longer than the crash.</summary>
    private const int AllJudged = 40;
    private static readonly int Judged = Judging.OneIn(20, 20);

    /// <summary>More scripts that are run to their end, to find all places: random ones, and those that are written out.</summary>
    private const int RareSeeds = 10_000;
    private const int RareBatches = 2;
    private const int WrittenSeeds = 20_000;

    /// <summary>In how many scripts a place is tried to be reached at once, and how many times.</summary>
    private const int SeedsOfPlace = 2;
    private const int RoundsOfPlaces = 4;

    /// <summary>How often a place is tried to be reached that only a start after a kill passes.</summary>
    private const int MostBatches = 10;

    /// <summary>Of one in so many everything is deleted, to see that nothing remains.</summary>
    private const int Emptied = 4;

    /// <summary>The last one needs machines.</summary>
    private readonly int _writtenScripts = guests is "memory" ? 4 : 5;

    private readonly Lock _lock = new();
    private readonly HashSet<CrashPoint> _reached = [];
    private readonly Dictionary<string, List<int>> _seen = new(StringComparer.Ordinal);
    private readonly HashSet<string> _stoppedAt = new(StringComparer.Ordinal);
    private int _aimed;
    private int _checked;

    /// <summary>A number that the environment sets.</summary>
    /// <param name="variable">The variable.</param>
    /// <param name="otherwise">The number without it.</param>
    public static int Count(string variable, int otherwise) =>
        int.TryParse(Environment.GetEnvironmentVariable(variable), NumberStyles.None, CultureInfo.InvariantCulture, out int count) ? count : otherwise;

    /// <summary>Kills at so many distinct points; when they are not just a few of everything, also at every place of the library that syncs, renames or removes.</summary>
    /// <param name="wanted">How many.</param>
    /// <param name="places">The places.</param>
    /// <param name="afterFailure">Calls that come after failures, and which of them, for places that are not reached otherwise.</param>
    /// <param name="say">Told what was reached.</param>
    public async Task KillAtCallsAsync(int wanted, IReadOnlyCollection<string> places, IReadOnlyCollection<(string Call, int Number)> afterFailure, Action<string> say)
    {
        ArgumentNullException.ThrowIfNull(say);
        if (wanted >= Sampled)
        {
            await KillAtPlacesAsync(afterFailure);
            await KillAgainAsync(places.Except(_stoppedAt, StringComparer.Ordinal));
        }

        await KillAtPointsAsync(wanted);
        say($"{_reached.Count} distinct points of {_aimed} were reached, at {_stoppedAt.Count(static place => place.Contains('@', StringComparison.Ordinal))} places that sync, rename or remove");
        Assert.True(_reached.Count >= wanted, $"{_reached.Count} points were reached");
        if (wanted >= Sampled)
        {
            string[] missed = [.. places.Union(_seen.Keys, StringComparer.Ordinal).Except(_stoppedAt, StringComparer.Ordinal).Order(StringComparer.Ordinal)];
            Assert.True(missed.Length == 0, $"nothing was killed at {string.Join(' ', missed)}");
        }
    }

    /// <summary>Kills at every place that a script passes, and whenever one of them fails.</summary>
    /// <remarks>Which places are passed depends on what happens to be written together, and is known when some scripts have been run.</remarks>
    private async Task KillAtPlacesAsync(IReadOnlyCollection<(string Call, int Number)> afterFailure)
    {
        for (int seed = RareSeeds; seed < RareSeeds + (Together * RareBatches); seed += Together)
        {
            _ = await RecordAsync(seed);
        }

        _ = await RecordAsync(WrittenSeeds, _writtenScripts);
        _ = await RecordAsync(0);

        // The first time that each is passed, and when it fails: what cleans up is reached then.
        await KillAsync([.. _seen.SelectMany(static entry => entry.Value.Take(SeedsOfPlace).SelectMany(seed => (CrashPoint[])[new(seed, entry.Key, 1), new(seed, $"!{entry.Key}", 1)]))]);
        await KillAsync([.. afterFailure.SelectMany(point => Enumerable.Range(WrittenSeeds, _writtenScripts).Select(seed => new CrashPoint(seed, point.Call, point.Number)))]);
        for (int round = 1; round < RoundsOfPlaces; round++)
        {
            await KillAsync([.. _seen.Where(entry => !_stoppedAt.Contains(entry.Key)).SelectMany(entry => entry.Value.Skip(round * SeedsOfPlace % entry.Value.Count).Take(SeedsOfPlace).Select(seed => new CrashPoint(seed, entry.Key, 1)))]);
        }
    }

    /// <summary>Kills at so many distinct points.</summary>
    /// <param name="wanted">How many, with those that were reached already.</param>
    /// <remarks>Not all that are aimed at are reached: what is written together is not the same each time.</remarks>
    private async Task KillAtPointsAsync(int wanted)
    {
        for (int seed = 0; _reached.Count < wanted; seed += Together)
        {
            List<CrashPoint> points = await RecordAsync(seed);
            points.RemoveAll(_reached.Contains);
            if (wanted < Sampled)
            {
                // Some of everything, the same each time.
                new Random(1).Shuffle(System.Runtime.InteropServices.CollectionsMarshal.AsSpan(points));
                points = [.. points.Take(wanted - _reached.Count)];
            }

            await KillAsync(points, wanted);
        }
    }

    /// <summary>Kills at places that only a start after a kill passes: a second time, while it clears up after the first.</summary>
    /// <param name="places">The places.</param>
    private async Task KillAgainAsync(IEnumerable<string> places)
    {
        // One of each place before there is a second of any: each leaves something else unfinished.
        CrashPoint[] first =
        [
            .. _reached.Where(static point => point.Call.Contains('@', StringComparison.Ordinal)).GroupBy(static point => point.Call, StringComparer.Ordinal)
                .SelectMany(static group => group.OrderBy(static point => point.Seed).ThenBy(static point => point.Number).Select(static (point, index) => (point, index)))
                .OrderBy(static entry => entry.index).ThenBy(static entry => entry.point.Call, StringComparer.Ordinal).Select(static entry => entry.point),
        ];
        foreach (string place in places)
        {
            for (int batch = 0; batch < MostBatches && !_stoppedAt.Contains(place); batch++)
            {
                CrashPoint[] points = [.. first.Skip(batch * Together).Take(Together)];
                Note(points.Select(point => point with { Call = $"{point.Call} and then {place}" }), await RunAsync(points, again: new CrashPoint(0, place, 1)));
            }
        }
    }

    /// <summary>Kills so many directories at random times.</summary>
    /// <param name="times">How many.</param>
    public Task KillAtAnyTimeAsync(int times) => Parallel.ForAsync(
        0,
        (times + TogetherAtAnyTime - 1) / TogetherAtAnyTime,
        new ParallelOptions { MaxDegreeOfParallelism = 2 },
        async (time, token) =>
        {
            Random random = new(time);
            CrashModel[] models = [.. Enumerable.Range(0, TogetherAtAnyTime).Select(static _ => new CrashModel())];
            string[] directories = [.. models.Select((_, each) => Path.Combine(folder, $"time-{time}-{each}"))];
            using CrashProcess child = CrashProcess.Run(guests, operations: 1_000_000, directories.Select((directory, each) => (directory, CrashPoint.None(1000 + (time * TogetherAtAnyTime) + each))));
            int lines = random.Next(1, 60 * TogetherAtAnyTime);
            while (lines-- > 0 && await child.Output.ReadLineAsync(token) is { } line)
            {
                Route(line, models);
            }

            // Somewhere in the operations that follow.
            for (int spin = random.Next(200_000); spin > 0; spin--)
            {
                Thread.SpinWait(10);
            }

            child.Process.Kill();
            await ReadAsync(child, models);
            for (int each = 0; each < models.Length; each++)
            {
                await CheckAsync(directories[each], models[each], $"time {time}, directory {each}");
            }
        });

    /// <summary>Kills a start of each directory at a call.</summary>
    /// <param name="starts">The directories, and at which call.</param>
    /// <returns>The places at which they stopped.</returns>
    public async Task<IReadOnlyList<string?>> KillAtStartAsync(IEnumerable<(string Directory, string Call)> starts)
    {
        (string Directory, CrashPoint Point)[] scripts = [.. starts.Select(static start => (start.Directory, new CrashPoint(0, start.Call, 1)))];
        CrashModel[] models = [.. scripts.Select(static _ => new CrashModel())];
        using CrashProcess child = CrashProcess.Run(guests, operations: 0, scripts);
        await ReadAsync(child, models);
        string?[] stoppedAt = [.. models.Select(static model => PlaceOf(model))];
        lock (_lock)
        {
            _stoppedAt.UnionWith(stoppedAt.OfType<string>());
        }

        return stoppedAt;
    }

    private static void Route(string line, CrashModel[] models)
    {
        int space = line.IndexOf(' ', StringComparison.Ordinal);
        models[int.Parse(line.AsSpan(0, space), CultureInfo.InvariantCulture)].Read(line[(space + 1)..]);
    }

    private static async Task ReadAsync(CrashProcess child, CrashModel[] models, CrashPoint[]? points = null)
    {
        try
        {
            while (await child.Output.ReadLineAsync().WaitAsync(Patience.For(TimeSpan.FromMinutes(2))) is { } line)
            {
                Route(line, models);
            }
        }
        catch (TimeoutException error)
        {
            string[] states = [.. models.Select((model, each) => $"{points?[each]}: stopped at '{model.StoppedAt}', under way '{model.UnderWay}'")];
            throw new TimeoutException($"The process is silent. {string.Join("; ", states)}", error);
        }

        await child.Process.WaitForExitAsync();
    }

    private static string? PlaceOf(CrashModel model) => model.StoppedAt?.Split("-after-")[0];

    private static void DeleteIfThere(string directory)
    {
        if (Directory.Exists(directory))
        {
            Directory.Delete(directory, recursive: true);
        }
    }

    /// <summary>Runs scripts to their end, and tells the points in them.</summary>
    private async Task<List<CrashPoint>> RecordAsync(int first, int count = Together)
    {
        List<CrashPoint> points = [];
        CrashModel[] models = await RunAsync([.. Enumerable.Range(first, count).Select(CrashPoint.None)]);
        for (int each = 0; each < count; each++)
        {
            foreach ((string call, int calls) in models[each].Calls)
            {
                if (call.Contains('@', StringComparison.Ordinal))
                {
                    points.AddRange(Enumerable.Range(1, calls).Select(number => new CrashPoint(first + each, call, number)));
                    if (!_seen.TryGetValue(call, out List<int>? seeds))
                    {
                        _seen.Add(call, seeds = []);
                    }

                    if (!seeds.Contains(first + each))
                    {
                        seeds.Add(first + each);
                    }
                }
                else if (!models[each].Calls.Keys.Any(other => other.StartsWith(call + '@', StringComparison.Ordinal)))
                {
                    points.AddRange(Enumerable.Range(1, (calls + Spacing - 1) / Spacing).Select(number => new CrashPoint(first + each, call, number * Spacing)));
                }
            }
        }

        return points;
    }

    private async Task KillAsync(List<CrashPoint> points, int wanted = int.MaxValue) => await Parallel.ForEachAsync(
        points.Chunk(Together),
        new ParallelOptions { MaxDegreeOfParallelism = 2 },
        async (batch, _) =>
        {
            lock (_lock)
            {
                if (_reached.Count >= wanted)
                {
                    return;
                }
            }

            Note(batch, await RunAsync(batch));
        });

    private void Note(IEnumerable<CrashPoint> points, CrashModel[] models)
    {
        lock (_lock)
        {
            _aimed += models.Length;
            foreach ((CrashPoint point, CrashModel model) in points.Zip(models).Where(static pair => pair.Second.StoppedAt is not null))
            {
                _reached.Add(point);
                _stoppedAt.Add(PlaceOf(model)!);
            }
        }
    }

    /// <param name="points">Where each script is stopped.</param>
    /// <param name="again">Where a start is that comes after that.</param>
    private async Task<CrashModel[]> RunAsync(CrashPoint[] points, CrashPoint? again = null)
    {
        string parent = Directory.CreateDirectory(Path.Combine(folder, Guid.NewGuid().ToString("N"))).FullName;
        CrashModel[] models = [.. points.Select(static _ => new CrashModel())];
        string[] directories = [.. points.Select((_, index) => Path.Combine(parent, $"{index}"))];
        using CrashProcess child = CrashProcess.Run(guests, Operations, directories.Zip(points));
        await ReadAsync(child, models, points);
        if (again is not null)
        {
            foreach (CrashModel model in models)
            {
                model.BeginAgain();
            }

            using CrashProcess second = CrashProcess.Run(guests, operations: 0, directories.Select(directory => (directory, again)));
            await ReadAsync(second, models);
        }

        for (int i = 0; i < points.Length; i++)
        {
            await CheckAsync(directories[i], models[i], $"{points[i]}");
        }

        DeleteIfThere(parent);
        return models;
    }

    private async Task CheckAsync(string directory, CrashModel model, string context)
    {
        try
        {
            await CheckFoundAsync(directory, model, context);
        }
        catch (Exception error)
        {
            throw new InvalidOperationException($"{context}, stopped at {model.StoppedAt}, under way '{model.UnderWay}'", error);
        }

        DeleteIfThere(directory);
        DeleteIfThere(directory + "-archives");
    }

    private async Task CheckFoundAsync(string directory, CrashModel model, string context)
    {
        // A process that was killed early has made none.
        if (Directory.Exists(directory))
        {
            int count = Interlocked.Increment(ref _checked);
            bool isEmptied = count % Emptied == 0;
            IUnikraftPlatform platform = open(directory);
            await using (platform.ConfigureAwait(false))
            {
                await model.CheckAsync(platform, context);
                if (isEmptied)
                {
                    await CrashModel.DeleteAllAsync(platform);
                }
            }

            Assert.DoesNotContain(Files(directory), static file => file.EndsWith(".tmp", StringComparison.Ordinal) || file.Contains("/import/", StringComparison.Ordinal));
            if (isEmptied)
            {
                // What was deleted last is removed by the next start at the latest.
                await open(directory).DisposeAsync();
                Assert.Empty(Files(directory).Where(static file => !IsFixed(file)).Select(file => $"{context}: {file}"));
            }
            else if (count <= AllJudged || count % Judged == 1 % Judged)
            {
                Assert.Empty(await LeftImages.FindProblemsAsync(directory));
            }
        }
    }

    private static IEnumerable<string> Files(string directory) =>
        Directory.EnumerateFiles(directory, "*", SearchOption.AllDirectories).Select(file => file[directory.Length..]);

    // What a directory without any resource consists of.
    private static bool IsFixed(string file) =>
        file is "/manifest" or "/lock" || file.EndsWith("/lock", StringComparison.Ordinal) || file.StartsWith("/metadata/", StringComparison.Ordinal) || file.StartsWith("/volumes/volumes.journal", StringComparison.Ordinal);
}
