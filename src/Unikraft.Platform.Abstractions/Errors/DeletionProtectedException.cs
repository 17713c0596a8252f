namespace Unikraft.Platform;

/// <summary>The resource has a delete lock. Remove the lock with <see cref="PatchOperation.SetDeleteLock"/> before deleting.</summary>
/// <param name="kind">What was to be deleted, for example <c>checkpoint</c>.</param>
/// <param name="name">Its name.</param>
/// <param name="uuid">Its UUID.</param>
public sealed class DeletionProtectedException(string kind, string name, Guid uuid)
    : PlatformException(PlatformErrorCode.DeletionProtected, "Deletion protection enabled")
{
    /// <summary>What was to be deleted, for example <c>checkpoint</c>.</summary>
    public string Kind { get; } = kind;

    /// <summary>The name of the resource.</summary>
    public string Name { get; } = name;

    /// <summary>The UUID of the resource.</summary>
    public Guid Uuid { get; } = uuid;
}
