using System.Buffers;
using System.Collections.Immutable;
using System.Runtime.CompilerServices;
using System.Text.Json;

namespace Unikraft.Platform.Storage;

/// <summary>
/// The histories of instances and checkpoints, each checkpoint with what came before it kept once: the lists share their ends, in memory and on the disk.
/// </summary>
/// <remarks>One caller at a time.</remarks>
internal sealed class Lineages
{
    private readonly Dictionary<Guid, Node> _nodes = [];
    private readonly Dictionary<(Guid Checkpoint, Guid? Parent), Guid> _ids = [];
    private readonly ConditionalWeakTable<ImmutableList<CheckpointReference>, object> _known = [];
    private readonly List<StateChange> _untold = [];

    // What a history was made from by putting one checkpoint in front, until it is kept itself.
    private readonly ConditionalWeakTable<ImmutableList<CheckpointReference>, ImmutableList<CheckpointReference>> _before = [];

    /// <summary>A history was made from another one by putting one checkpoint in front.</summary>
    /// <remarks>May be called by anybody at any time.</remarks>
    internal void Extended(ImmutableList<CheckpointReference> before, ImmutableList<CheckpointReference> history) => _before.AddOrUpdate(history, before);

    /// <summary>The record of a history.</summary>
    internal Guid? Keep(ImmutableList<CheckpointReference> history)
    {
        if (history.IsEmpty)
        {
            return null;
        }

        if (_known.TryGetValue(history, out object? known))
        {
            return (Guid)known;
        }

        if (_before.TryGetValue(history, out ImmutableList<CheckpointReference>? before))
        {
            // Of a lineage of any length only what is new.
            _before.Remove(history);
            Guid head = Keep(history[0], Keep(before));
            _known.AddOrUpdate(history, head);
            return head;
        }

        Guid? id = null;

        // A list that is turned around is made anew, node by node, and this happens with every checkpoint of a lineage of any length.
        CheckpointReference[] newestFirst = ArrayPool<CheckpointReference>.Shared.Rent(history.Count);
        history.CopyTo(newestFirst);
        for (int i = history.Count - 1; i >= 0; i--)
        {
            id = Keep(newestFirst[i], id);
        }

        ArrayPool<CheckpointReference>.Shared.Return(newestFirst, clearArray: true);

        _known.AddOrUpdate(history, id!.Value);
        return id;
    }

    /// <summary>The records that were made since this was last called.</summary>
    internal IReadOnlyList<StateChange> TakeUntold()
    {
        StateChange[] untold = [.. _untold];
        _untold.Clear();
        return untold;
    }

    /// <summary>The changes could not be written: they are told again.</summary>
    internal void Untell(IEnumerable<StateChange> changes) => _untold.InsertRange(0, changes.Where(static change => change.Key.Kind == StateKind.Lineage));

    internal void Load(Guid id, LineageRecord record)
    {
        _nodes[id] = new Node(new CheckpointReference(record.Checkpoint, record.Name, record.CreatedAt), record.Parent);
        _ids[(record.Checkpoint, record.Parent)] = id;
    }

    /// <summary>Removes what no resource refers to.</summary>
    /// <param name="heads">The records that resources refer to.</param>
    /// <returns>The records that are not needed.</returns>
    internal IReadOnlyList<Guid> Collect(IEnumerable<Guid> heads)
    {
        HashSet<Guid> needed = [];
        foreach (Guid head in heads)
        {
            for (Guid? id = head; id is { } current && _nodes.TryGetValue(current, out Node? node) && needed.Add(current); id = node.Parent)
            {
            }
        }

        List<Guid> unneeded = [.. _nodes.Keys.Where(id => !needed.Contains(id))];
        foreach (Guid id in unneeded)
        {
            _nodes.Remove(id, out Node? node);
            _ids.Remove((node!.Checkpoint.Uuid, node.Parent));
        }

        return unneeded;
    }

    /// <summary>The history of which a record is the head.</summary>
    /// <exception cref="MetadataDamageException">A part of it is missing.</exception>
    internal ImmutableList<CheckpointReference> Read(Guid? head)
    {
        Stack<Node> missing = [];
        ImmutableList<CheckpointReference> history = [];
        for (Guid? id = head; id is { } current;)
        {
            if (!_nodes.TryGetValue(current, out Node? node) || missing.Count > _nodes.Count)
            {
                throw new MetadataDamageException("refers to a history that is not there");
            }

            if (node.History is { } known)
            {
                history = known;
                break;
            }

            missing.Push(node);
            id = node.Parent;
        }

        while (missing.TryPop(out Node? node))
        {
            history = node.History = history.Insert(0, node.Checkpoint);
        }

        if (head is { } read)
        {
            _known.AddOrUpdate(history, read);
        }

        return history;
    }

    private Guid Keep(CheckpointReference checkpoint, Guid? parent)
    {
        if (_ids.TryGetValue((checkpoint.Uuid, parent), out Guid id))
        {
            return id;
        }

        id = Guid.NewGuid();
        LineageRecord record = new(checkpoint.Uuid, checkpoint.Name, checkpoint.CreatedAt, parent);
        Load(id, record);
        _untold.Add(new StateChange(
            new StateKey(StateKind.Lineage, id),
            StateChangeKind.Put,
            JsonSerializer.SerializeToUtf8Bytes(record, RecordSerializer.Default.LineageRecord)));
        return id;
    }

    private sealed class Node(CheckpointReference checkpoint, Guid? parent)
    {
        internal CheckpointReference Checkpoint { get; } = checkpoint;

        internal Guid? Parent { get; } = parent;

        internal ImmutableList<CheckpointReference>? History { get; set; }
    }
}
