namespace Unikraft.Platform.Storage;

/// <summary>The owner of a resource that a data directory keeps.</summary>
internal interface IKeptResource
{
    StateKey Key { get; }

    /// <summary>What is to be kept of it at this moment.</summary>
    /// <returns><see langword="null"/> when it cannot be found, not yet or not any more, or is not complete.</returns>
    ResourceRecord? Save(DataDirectory data);
}
