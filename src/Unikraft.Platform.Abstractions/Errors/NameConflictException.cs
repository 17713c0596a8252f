namespace Unikraft.Platform;

/// <summary>The requested name is taken.</summary>
/// <param name="kind">What was to be created, with an indefinite article: <c>A checkpoint</c>.</param>
/// <param name="name">The name.</param>
public sealed class NameConflictException(string kind, string name) : PlatformException(
    PlatformErrorCode.AlreadyExists,
    $"{kind} with the name '{name}' already exists")
{
    /// <summary>The name that is taken.</summary>
    public string Name { get; } = name;
}
