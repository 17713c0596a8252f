using System.Globalization;

namespace Unikraft.Platform.Contracts.Crashes;

/// <summary>What a child process had acknowledged of a directory, and what it was about to do.</summary>
public sealed class CrashModel
{
    private const string Unknown = "-";

    // More than one after an error of the disk: the next start finds what has failed, or not.
    private List<State> _possible = [new State([], [], [], [])];
    private readonly HashSet<string> _doubtful = new(StringComparer.Ordinal);
    private string[]? _underWay;

    /// <summary>The place where the directory has stopped; <see langword="null"/> when it got through.</summary>
    public string? StoppedAt { get; private set; }

    /// <summary>How many calls there were of each kind, and at each place, when it got through.</summary>
    public IReadOnlyDictionary<string, int> Calls { get; private set; } = new Dictionary<string, int>(StringComparer.Ordinal);

    /// <summary>How many operations were acknowledged.</summary>
    public int Operations { get; private set; }

    /// <summary>The operation that was under way.</summary>
    public string UnderWay => string.Join(' ', _underWay ?? []);

    /// <summary>Another child starts on what the first has left.</summary>
    public void BeginAgain() => StoppedAt = null;

    /// <summary>Takes in what a child says.</summary>
    /// <param name="line">The line.</param>
    public void Read(string line)
    {
        ArgumentNullException.ThrowIfNull(line);
        string[] words = line.Split(' ');
        switch (words[0])
        {
            case "begin":
                _underWay = words[1..];
                break;
            case "done":
                _possible = [.. _possible.Select(state => state.With(_underWay!, words[1]))];
                _underWay = null;
                Operations++;
                break;
            case "refused":
                if (string.Equals(words[1], nameof(PlatformErrorCode.StorageFailed), StringComparison.Ordinal))
                {
                    _possible.AddRange(_possible.Select(state => state.With(_underWay!, held: null)).ToArray());
                    _doubtful.Add(_underWay![1]);
                }

                _underWay = null;
                break;
            case "failed-at":
                break;
            case "stopped":
                StoppedAt = words[3];
                break;
            case "end":
                Calls = words[1..].Select(static word => word.Split('=')).ToDictionary(static word => word[0], static word => int.Parse(word[1], CultureInfo.InvariantCulture), StringComparer.Ordinal);
                break;
            default:
                Assert.Fail(line);
                break;
        }
    }

    /// <summary>Checks a platform that was opened on what the child has left: what there is, and that guests go on with what they held.</summary>
    /// <param name="platform">The platform.</param>
    /// <param name="context">Where the child was killed.</param>
    public async Task CheckAsync(IUnikraftPlatform platform, string context)
    {
        ArgumentNullException.ThrowIfNull(platform);
        State found = State.Of(platform);
        State[] possible =
        [
            .. _possible,
            .. _underWay is null ? [] : _possible.Select(state => state.With(_underWay, held: null)),
        ];
        State? expected = Array.Find(possible, found.IsSame);
        Assert.True(
            expected is not null,
            $"{context}: acknowledged {string.Join(" or ", _possible)}, under way '{string.Join(' ', _underWay ?? [])}', found {found}");
        Assert.All(platform.Instances.List(), instance => Assert.Equal(InstanceState.Stopped, instance.State));
        Assert.All(platform.Volumes.List(), volume => Assert.Null(volume.Error));
        Assert.Empty(platform.Data!.DamageFound);
        Assert.Empty(await platform.Data!.VerifyAsync().Guarded());

        // Those that could not be made with what others hold are made of it: a checkpoint and a template more than once.
        foreach ((string name, string? held) in expected.Checkpoints)
        {
            await CheckCloneAsync(platform, new CreateInstanceRequest { Checkpoint = name, WaitTimeout = Timeout.InfiniteTimeSpan }, held, $"{context}: checkpoint {name}");
        }

        foreach ((string name, string? held) in expected.Templates)
        {
            await CheckCloneAsync(platform, new CreateInstanceRequest { Template = name, WaitTimeout = Timeout.InfiniteTimeSpan }, held, $"{context}: template {name}");
        }

        foreach ((string name, State.Kept kept) in expected.Instances.Where(static entry => entry.Value.Held is not null and not Unknown))
        {
            // A counter that was not suspended has lost its memory, as documented; what was put on a volume is there either way.
            bool isSuspended = kept.IsSuspended && !_doubtful.Contains(name) && !string.Equals(_underWay?[1], name, StringComparison.Ordinal);
            if (isSuspended || kept.Held!.StartsWith("kv:", StringComparison.Ordinal))
            {
                await platform.Instances.StartAsync(name).Guarded();
                await CheckHeldAsync(platform, name, kept.Held!, isExact: isSuspended, $"{context}: instance {name}");
            }
        }
    }

    /// <summary>Deletes everything that a platform has.</summary>
    /// <param name="platform">The platform.</param>
    public static async Task DeleteAllAsync(IUnikraftPlatform platform)
    {
        ArgumentNullException.ThrowIfNull(platform);
        foreach (Instance instance in platform.Instances.List())
        {
            await platform.Instances.DeleteAsync(instance.Uuid).Guarded();
        }

        foreach (Checkpoint checkpoint in platform.Checkpoints.List())
        {
            await platform.Checkpoints.DeleteAsync(checkpoint.Uuid).Guarded();
        }

        foreach (Template template in platform.Templates.List())
        {
            await platform.Templates.DeleteAsync(template.Uuid).Guarded();
        }

        foreach (Volume volume in platform.Volumes.List())
        {
            await platform.Volumes.DeleteAsync(volume.Uuid).Guarded();
        }
    }

    private static async Task CheckCloneAsync(IUnikraftPlatform platform, CreateInstanceRequest request, string? held, string context)
    {
        Instance clone = await platform.Instances.CreateAsync(request).Guarded();
        if (held is not null and not Unknown)
        {
            await CheckHeldAsync(platform, clone.Uuid, held, isExact: true, context);
        }

        await platform.Instances.DeleteAsync(clone.Uuid).Guarded();
    }

    // Of a counter the same nonce and the next tick: it was restored, and not booted.
    private static async Task CheckHeldAsync(IUnikraftPlatform platform, NameOrUuid instance, string held, bool isExact, string context)
    {
        await using ConsoleSession console = new(platform.Instances.AttachConsole(instance));
        string[] words = held.Split(':');
        if (words[0] is not "kv")
        {
            CounterTick tick = await console.TickAsync();
            Assert.True(
                string.Equals(words[0], tick.Nonce, StringComparison.Ordinal) && tick.Tick == int.Parse(words[1], CultureInfo.InvariantCulture) + 1,
                $"{context}: held {held}, goes on with {tick.Nonce}:{tick.Tick}");
            return;
        }

        await console.WriteLineAsync("get who");
        string value = (await console.ReadLineAsync("value="))["value=".Length..];
        int put = int.Parse(words[1], CultureInfo.InvariantCulture);
        int got = int.Parse(value, CultureInfo.InvariantCulture);
        Assert.True(isExact ? got == put : got >= put, $"{context}: held {held}, has {value}");
        await console.WriteLineAsync("check");
        Assert.StartsWith("check ok", await console.ReadLineAsync("check"), StringComparison.Ordinal);
    }

    /// <param name="Instances">The instances.</param>
    /// <param name="Checkpoints">What the guests of checkpoints held.</param>
    /// <param name="Templates">What those of templates held.</param>
    /// <param name="Volumes">The volumes with names.</param>
    private sealed record State(
        Dictionary<string, State.Kept> Instances,
        Dictionary<string, string?> Checkpoints,
        Dictionary<string, string?> Templates,
        HashSet<string> Volumes)
    {
        /// <param name="Tags">Its tags.</param>
        /// <param name="Held">What it held when somebody was told last.</param>
        /// <param name="IsSuspended">Whether its memory is kept.</param>
        /// <param name="Volume">Its volume, if that has a name.</param>
        internal sealed record Kept(string Tags, string? Held, bool IsSuspended, string? Volume = null);

        internal static State Of(IUnikraftPlatform platform) => new(
            platform.Instances.List().ToDictionary(instance => instance.Name, instance => new Kept(string.Join(',', instance.Tags), Held: null, IsSuspended: false), StringComparer.Ordinal),
            platform.Checkpoints.List().ToDictionary(static checkpoint => checkpoint.Name, static _ => (string?)null, StringComparer.Ordinal),
            platform.Templates.List().ToDictionary(static template => template.Name, static _ => (string?)null, StringComparer.Ordinal),
            new(platform.Volumes.List().Select(static volume => volume.Name).OfType<string>().Where(static name => name.Length > 0), StringComparer.Ordinal));

        /// <param name="operation">What was done.</param>
        /// <param name="held">What the guest holds that was kept, or has been made; <see langword="null"/> when nobody was told.</param>
        internal State With(string[] operation, string? held)
        {
            bool isPossible = operation[0] switch
            {
                "instance" or "kv" => !Instances.ContainsKey(operation[1]),
                "load" => Checkpoints.ContainsKey(operation[1]) && !Instances.ContainsKey(operation[2]),
                "branch" => Instances.ContainsKey(operation[1]) && !Instances.ContainsKey(operation[2]),
                "clone" => Templates.ContainsKey(operation[1]) && !Instances.ContainsKey(operation[2]),
                "checkpoint" => Instances.ContainsKey(operation[1]) && !Checkpoints.ContainsKey(operation[2]),
                "import" => !Checkpoints.ContainsKey(operation[1].Split('.')[0]),
                "start" or "tick" or "suspend" or "stop" or "tag" or "template" => Instances.ContainsKey(operation[1]),
                "clone-volume" => Volumes.Contains(operation[1]),
                _ => true,
            };
            if (!isPossible)
            {
                // It will be refused.
                return this;
            }

            State next = new(
                new(Instances, StringComparer.Ordinal),
                new(Checkpoints, StringComparer.Ordinal),
                new(Templates, StringComparer.Ordinal),
                new(Volumes, StringComparer.Ordinal));
            switch (operation[0])
            {
                case "instance":
                    next.Instances[operation[1]] = new Kept("", held, IsSuspended: false);
                    break;
                case "kv":
                    next.Instances[operation[1]] = new Kept("", held, IsSuspended: false, operation[2]);
                    break;
                case "load" or "branch" or "clone":
                    next.Instances[operation[2]] = new Kept("", held, IsSuspended: false);
                    break;
                case "start" or "tick" or "suspend" or "stop":
                    // Nothing takes from a volume what was put on it.
                    Kept before = next.Instances[operation[1]];
                    bool isOver = held is null || (held is Unknown && operation[0] is "tick" or "stop");
                    next.Instances[operation[1]] = before with
                    {
                        Held = isOver ? before.Held : held,
                        IsSuspended = operation[0] is "suspend" || (operation[0] is "tick" or "stop" && before.IsSuspended),
                    };
                    break;
                case "delete-instance":
                    next.Instances.Remove(operation[1]);
                    break;
                case "checkpoint":
                    next.Checkpoints.Add(operation[2], held);
                    break;
                case "import":
                    next.Checkpoints.Add(operation[1].Split('.')[0], held);
                    break;
                case "delete-checkpoint":
                    next.Checkpoints.Remove(operation[1]);
                    break;
                case "template":
                    // Its volume goes with it.
                    if (next.Instances.Remove(operation[1], out Kept? converted) && converted.Volume is { } volume)
                    {
                        next.Volumes.Remove(volume);
                    }

                    next.Templates[operation[1]] = held;
                    break;
                case "delete-template":
                    next.Templates.Remove(operation[1]);
                    break;
                case "tag":
                    next.Instances[operation[1]] = next.Instances[operation[1]] with { Tags = operation[2] };
                    break;
                case "volume":
                    next.Volumes.Add(operation[1]);
                    break;
                case "delete-volume":
                    next.Volumes.Remove(operation[1]);
                    break;
                case "clone-volume":
                    next.Volumes.Add(operation[2]);
                    break;
            }

            return next;
        }

        internal bool IsSame(State other) =>
            Checkpoints.Keys.ToHashSet(StringComparer.Ordinal).SetEquals(other.Checkpoints.Keys)
            && Templates.Keys.ToHashSet(StringComparer.Ordinal).SetEquals(other.Templates.Keys)
            && Volumes.SetEquals(other.Volumes)
            && Instances.Count == other.Instances.Count
            && Instances.All(entry => other.Instances.TryGetValue(entry.Key, out Kept? kept) && string.Equals(kept.Tags, entry.Value.Tags, StringComparison.Ordinal));

        public override string ToString() =>
            $"{{{string.Join(' ', Instances.OrderBy(entry => entry.Key, StringComparer.Ordinal).Select(entry => $"{entry.Key}[{entry.Value.Tags}]"))}; "
            + $"{string.Join(' ', Checkpoints.Keys.Order(StringComparer.Ordinal))}; {string.Join(' ', Templates.Keys.Order(StringComparer.Ordinal))}; {string.Join(' ', Volumes.Order(StringComparer.Ordinal))}}}";
    }
}
