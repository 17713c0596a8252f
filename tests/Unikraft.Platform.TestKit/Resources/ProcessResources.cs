using System.Globalization;
using System.Text;

namespace Unikraft.Platform.TestKit;

/// <summary>What this process holds at one moment: file descriptors, memory mappings and threads, by kind.</summary>
/// <remarks>
/// Counted from <c>/proc/self</c>. The runtime itself maps memory and starts pool threads when it likes. So what belongs to the runtime is left out as far
/// as it can be told apart, and <see cref="AssertNoGrowthAsync"/> repeats an action so often that a leak outweighs the rest.
/// </remarks>
public sealed class ProcessResources
{
    private const int Looks = 3;

    private readonly SortedDictionary<string, int> _descriptors = new(StringComparer.Ordinal);
    private readonly SortedDictionary<string, int> _mappings = new(StringComparer.Ordinal);
    private readonly SortedDictionary<string, int> _threads = new(StringComparer.Ordinal);

    private ProcessResources()
    {
    }

    /// <summary>The number of open file descriptors.</summary>
    public int FileDescriptors => _descriptors.Values.Sum();

    /// <summary>The number of memory mappings.</summary>
    public int Mappings => _mappings.Values.Sum();

    /// <summary>The number of threads.</summary>
    public int Threads => _threads.Values.Sum();

    /// <summary>The size of all mappings in bytes, reserved address space included.</summary>
    public long MappedBytes { get; private set; }

    /// <summary>Counts.</summary>
    public static ProcessResources Capture()
    {
        ProcessResources resources = new();
        foreach (string descriptor in Directory.EnumerateFileSystemEntries("/proc/self/fd"))
        {
            // The descriptor of the enumeration itself is gone by the time it is looked at. Assemblies are opened whenever the runtime first needs them.
            if (new FileInfo(descriptor).LinkTarget is { } target
                && !target.StartsWith("/proc/", StringComparison.Ordinal)
                && !target.EndsWith(".dll", StringComparison.Ordinal))
            {
                Count(resources._descriptors, WithoutNumber(target));
            }
        }

        foreach (string line in File.ReadLines("/proc/self/maps"))
        {
            string[] fields = line.Split(' ', 6, StringSplitOptions.RemoveEmptyEntries);
            string[] range = fields[0].Split('-');
            resources.MappedBytes += long.Parse(range[1], NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture)
                - long.Parse(range[0], NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture);
            Count(resources._mappings, fields.Length > 5 ? WithoutNumber(fields[5]) : "anonymous");
        }

        foreach (string thread in Directory.EnumerateDirectories("/proc/self/task"))
        {
            if (TryReadName(thread) is { } name)
            {
                Count(resources._threads, name);
            }
        }

        return resources;
    }

    /// <summary>Fails when more of anything is held now than before, of what the runtime does not take for itself.</summary>
    /// <param name="before">What was held before.</param>
    /// <param name="tolerance">How many more of a kind are accepted. Default: none.</param>
    public static void AssertNoGrowth(ProcessResources before, int tolerance = 0)
    {
        ArgumentNullException.ThrowIfNull(before);
        SortedDictionary<string, string> growth = Capture().GrowthSince(before, tolerance);
        Report(growth.Where(entry => !BelongsToRuntime(entry.Key)), "Resources were leaked");
    }

    /// <summary>Runs an action again and again, and fails when it leaves a descriptor, mapping or thread of any kind behind each time.</summary>
    /// <remarks>
    /// What grows is looked at again, up to three times: the runtime's own growth comes to an end, a leak does not.
    /// </remarks>
    /// <param name="action">What must not leak.</param>
    /// <param name="rounds">How often to run it after the first time, which does not count. At least 4. Default: 16.</param>
    /// <param name="bytesPerRound">
    /// The size of the memory the action maps: when given, address space must not grow by that much in every round. Adjacent mappings
    /// without a name count as one, so this finds what counting does not.
    /// </param>
    public static async Task AssertNoGrowthAsync(Func<Task> action, int rounds = 16, long bytesPerRound = 0)
    {
        ArgumentNullException.ThrowIfNull(action);
        ArgumentOutOfRangeException.ThrowIfLessThan(rounds, 4);
        await action();
        SortedDictionary<string, string>? leaks = null;
        for (int look = 0; look < Looks && leaks is not { Count: 0 }; look++)
        {
            ProcessResources before = Capture();
            for (int round = 0; round < rounds; round++)
            {
                await action();
            }

            ProcessResources after = Capture();
            SortedDictionary<string, string> growth = after.GrowthSince(before, tolerance: rounds / 2);
            if (bytesPerRound > 0 && after.MappedBytes - before.MappedBytes >= rounds * bytesPerRound * 3 / 4)
            {
                growth["address space"] = $"{before.MappedBytes} -> {after.MappedBytes} bytes";
            }

            foreach (string kind in leaks?.Keys.Except(growth.Keys, StringComparer.Ordinal).ToList() ?? [])
            {
                leaks!.Remove(kind);
            }

            leaks ??= growth;
        }

        Report(leaks!, $"Resources were leaked in {rounds} rounds, {Looks} times over");
    }

    /// <summary>All kinds with their counts, one a line.</summary>
    public override string ToString()
    {
        StringBuilder text = new();
        foreach ((string what, SortedDictionary<string, int> counts) in Kinds())
        {
            foreach ((string kind, int count) in counts)
            {
                text.Append(CultureInfo.InvariantCulture, $"{what} {kind}: {count}\n");
            }
        }

        return text.ToString();
    }

    private static void Report(IEnumerable<KeyValuePair<string, string>> growth, string what)
    {
        string[] lines = [.. growth.Select(entry => $"  {entry.Key}: {entry.Value}")];
        Assert.True(lines.Length == 0, $"{what}:\n{string.Join('\n', lines)}");
    }

    private SortedDictionary<string, string> GrowthSince(ProcessResources before, int tolerance)
    {
        SortedDictionary<string, string> growth = new(StringComparer.Ordinal);
        foreach (((string what, SortedDictionary<string, int> now), (_, SortedDictionary<string, int> then)) in Kinds().Zip(before.Kinds()))
        {
            foreach ((string kind, int count) in now.Where(entry => !IsLoadedCode(entry.Key)))
            {
                int old = then.GetValueOrDefault(kind);
                if (count > old + tolerance)
                {
                    growth[$"{what} {kind}"] = string.Create(CultureInfo.InvariantCulture, $"{old} -> {count}");
                }
            }
        }

        return growth;
    }

    private IEnumerable<(string What, SortedDictionary<string, int> Counts)> Kinds() =>
        [("descriptor", _descriptors), ("mapping", _mappings), ("thread", _threads)];

    private static bool IsLoadedCode(string kind) =>
        kind.EndsWith(".dll", StringComparison.Ordinal) || kind.Contains(".so", StringComparison.Ordinal)
        || kind.StartsWith("/memfd:doublemapper", StringComparison.Ordinal);

    private static bool BelongsToRuntime(string growth) =>
        growth is "mapping anonymous" or "mapping [heap]" or "mapping [stack]" || growth.StartsWith("thread .NET ", StringComparison.Ordinal);

    private static void Count(SortedDictionary<string, int> counts, string kind) => counts[kind] = counts.GetValueOrDefault(kind) + 1;

    /// <summary><c>socket:[1234]</c> and <c>socket:[1235]</c> are of one kind.</summary>
    private static string WithoutNumber(string target)
    {
        int bracket = target.IndexOf(":[", StringComparison.Ordinal);
        return bracket > 0 && target.EndsWith(']') && char.IsAsciiDigit(target[bracket + 2]) ? target[..bracket] : target;
    }

    private static string? TryReadName(string thread)
    {
        try
        {
            return File.ReadAllText(Path.Combine(thread, "comm")).TrimEnd('\n');
        }
        catch (IOException)
        {
            // The thread ended while it was looked at, so it does not count.
            return null;
        }
    }
}
