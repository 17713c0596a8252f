namespace Unikraft.Platform;

/// <summary>There is no instance, checkpoint or template with the given name or UUID.</summary>
/// <param name="kind">What was looked for, for example <c>instance</c>.</param>
/// <param name="reference">The name or UUID.</param>
public sealed class ResourceNotFoundException(string kind, NameOrUuid reference) : PlatformException(
    PlatformErrorCode.NotFound,
    $"No {kind} with {(reference.Name is null ? "uuid" : "name")} '{reference}'")
{
    /// <summary>What was looked for.</summary>
    public string Kind { get; } = kind;

    /// <summary>The name or UUID that is unknown.</summary>
    public NameOrUuid Reference { get; } = reference;
}
