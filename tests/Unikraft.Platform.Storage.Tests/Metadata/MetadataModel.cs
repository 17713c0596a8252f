using System.Text;
using Unikraft.Platform.Storage.Tests.Testing;

namespace Unikraft.Platform.Storage.Tests.Metadata;

/// <summary>Random changes of metadata, and what of them must be there afterwards.</summary>
internal sealed class MetadataModel(int seed)
{
    private readonly Random _random = new(seed);
    private readonly Guid[] _uuids = [.. Enumerable.Range(0, 12).Select(i => new Guid(i + 1, 0, 0, new byte[8]))];

    /// <summary>What was acknowledged.</summary>
    internal Dictionary<StateKey, string> Acknowledged { get; } = [];

    /// <summary>What is there if the change that was under way holds too.</summary>
    internal Dictionary<StateKey, string>? UnderWay { get; private set; }

    internal static MetadataStore Open(IFileLayer disk, bool isSynced = true) => MetadataStore.Open(new DataFiles(disk, "/data", isSynced));

    internal static Dictionary<StateKey, string> StatesOf(MetadataStore store) => store.States.ToDictionary(
        entry => entry.Key,
        entry => entry.Value.Kind == StateChangeKind.Put ? Encoding.UTF8.GetString(entry.Value.Payload.Span) : $"damaged {entry.Key}");

    internal void Step(MetadataStore store)
    {
        List<StateChange> changes = [];
        Dictionary<StateKey, string> next = new(Acknowledged);
        for (int i = _random.Next(1, 4); i > 0; i--)
        {
            StateKey key = new((StateKind)_random.Next(1, 5), _uuids[_random.Next(_uuids.Length)]);
            string payload = new((char)('a' + _random.Next(26)), _random.Next(0, 3000));
            bool isRemoval = _random.Next(4) == 0;
            changes.Add(new StateChange(key, isRemoval ? StateChangeKind.Remove : StateChangeKind.Put, isRemoval ? default : Encoding.UTF8.GetBytes(payload)));
            if (isRemoval)
            {
                next.Remove(key);
            }
            else
            {
                next[key] = payload;
            }
        }

        UnderWay = next;
        if (_random.Next(12) == 0)
        {
            UnderWay = null;
            store.Compact(0);
            UnderWay = next;
        }

        store.Append(changes, serviceTime: 0);
        Acknowledged.Clear();
        foreach ((StateKey key, string payload) in next)
        {
            Acknowledged.Add(key, payload);
        }

        UnderWay = null;
    }

    /// <summary>Checks that what was acknowledged is there, and what was under way completely or not at all.</summary>
    internal void Check(MetadataStore store)
    {
        Dictionary<StateKey, string> found = StatesOf(store);
        Assert.True(AreEqual(found, Acknowledged) || (UnderWay is not null && AreEqual(found, UnderWay)), $"seed {seed}");
        Assert.Empty(store.Damage);
    }

    private static bool AreEqual(Dictionary<StateKey, string> one, Dictionary<StateKey, string> other) =>
        one.Count == other.Count && one.All(entry => other.TryGetValue(entry.Key, out string? value) && string.Equals(value, entry.Value, StringComparison.Ordinal));
}
