namespace Unikraft.Platform.Storage.Tests.Crashes;

/// <summary>What a child process had acknowledged, and what it was about to do.</summary>
internal sealed class CrashModel
{
    private Dictionary<string, string> _instances = new(StringComparer.Ordinal);
    private HashSet<string> _checkpoints = new(StringComparer.Ordinal);
    private string[]? _underWay;

    internal void Read(string line)
    {
        string[] words = line.Split(' ');
        switch (words[0])
        {
            case "begin":
                _underWay = words[1..];
                break;
            case "done":
                Apply(_underWay!, _instances, _checkpoints);
                _underWay = null;
                break;
            case "refused":
                _underWay = null;
                break;
        }
    }

    /// <summary>Checks a platform that was opened on what the child has left, and goes on from there.</summary>
    internal void Check(IUnikraftPlatform platform, string context)
    {
        Dictionary<string, string> instances = platform.Instances.List()
            .ToDictionary(instance => instance.Name, instance => string.Join(',', instance.Tags), StringComparer.Ordinal);
        HashSet<string> checkpoints = new(platform.Checkpoints.List().Select(checkpoint => checkpoint.Name), StringComparer.Ordinal);
        bool isAsAcknowledged = AreEqual(instances, checkpoints, _instances, _checkpoints);
        if (!isAsAcknowledged && _underWay is { } operation)
        {
            Dictionary<string, string> nextInstances = new(_instances, StringComparer.Ordinal);
            HashSet<string> nextCheckpoints = new(_checkpoints, StringComparer.Ordinal);
            Apply(operation, nextInstances, nextCheckpoints);
            isAsAcknowledged = AreEqual(instances, checkpoints, nextInstances, nextCheckpoints);
        }

        Assert.True(
            isAsAcknowledged,
            $"{context}: acknowledged {Describe(_instances, _checkpoints)}, under way '{string.Join(' ', _underWay ?? [])}', found {Describe(instances, checkpoints)}");
        Assert.All(platform.Instances.List(), instance => Assert.Equal(InstanceState.Stopped, instance.State));
        Assert.All(
            platform.Instances.List().Where(instance => instance.StartCount > 0),
            instance => Assert.True(instance.StopReason!.Value.HasFlag(StopReason.Platform), instance.ToString()));
        Assert.Empty(platform.Data!.DamageFound);
        (_instances, _checkpoints, _underWay) = (instances, checkpoints, null);
    }

    private static void Apply(string[] operation, Dictionary<string, string> instances, HashSet<string> checkpoints)
    {
        switch (operation[0])
        {
            case "instance":
                instances[operation[1]] = "";
                break;
            case "delete-instance":
                instances.Remove(operation[1]);
                break;
            case "checkpoint":
                checkpoints.Add(operation[2]);
                break;
            case "delete-checkpoint":
                checkpoints.Remove(operation[1]);
                break;
            case "tag":
                instances[operation[1]] = operation[2];
                break;
            case "load":
                instances[operation[2]] = "";
                break;
        }
    }

    private static bool AreEqual(
        Dictionary<string, string> instances,
        HashSet<string> checkpoints,
        Dictionary<string, string> otherInstances,
        HashSet<string> otherCheckpoints) =>
        checkpoints.SetEquals(otherCheckpoints)
        && instances.Count == otherInstances.Count
        && instances.All(entry => otherInstances.TryGetValue(entry.Key, out string? tags) && string.Equals(tags, entry.Value, StringComparison.Ordinal));

    private static string Describe(Dictionary<string, string> instances, HashSet<string> checkpoints) =>
        $"{{{string.Join(' ', instances.OrderBy(entry => entry.Key, StringComparer.Ordinal).Select(entry => $"{entry.Key}[{entry.Value}]"))}; "
        + $"{string.Join(' ', checkpoints.Order(StringComparer.Ordinal))}}}";
}
