namespace Unikraft.Platform.Storage;

/// <summary>One change of the metadata. The numbers are those of the files.</summary>
internal enum StateChangeKind : byte
{
    /// <summary>The payload is the state from now on.</summary>
    Put = 1,

    /// <summary>There is no such resource any more.</summary>
    Remove = 2,

    /// <summary>The state was lost to damage, which the payload describes.</summary>
    Damaged = 3,
}

/// <summary>One change of the metadata.</summary>
/// <param name="Key">Of what.</param>
/// <param name="Kind">How.</param>
/// <param name="Payload">The new state, or a description of what has become of it.</param>
internal sealed record StateChange(StateKey Key, StateChangeKind Kind, ReadOnlyMemory<byte> Payload)
{
    /// <summary>The snapshot that the new state refers to. Known only of what is being written.</summary>
    internal Guid? Snapshot { get; init; }
}
