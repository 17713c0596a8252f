namespace Unikraft.Platform;

/// <summary>One change of the properties that instances, checkpoints and templates have in common.</summary>
/// <remarks>A patch is a list of these, applied in order. It is applied as a whole or, when one of them is not allowed, not at all.</remarks>
public abstract record PatchOperation
{
    private PatchOperation()
    {
    }

    /// <summary>Property <c>tags</c>, operation <c>add</c>: adds those tags that are not there.</summary>
    /// <param name="Tags">Tags, each of 1 to 256 letters, digits and <c>- + _ . : =</c>. A resource has up to 16.</param>
    public sealed record AddTags(params IReadOnlyList<string> Tags) : PatchOperation;

    /// <summary>Property <c>tags</c>, operation <c>del</c>: removes those tags that are there.</summary>
    /// <param name="Tags">Tags, by the same rules.</param>
    public sealed record DelTags(params IReadOnlyList<string> Tags) : PatchOperation;

    /// <summary>Property <c>tags</c>, operation <c>set</c>: replaces all tags.</summary>
    /// <param name="Tags">Tags, by the same rules. None removes all.</param>
    public sealed record SetTags(params IReadOnlyList<string> Tags) : PatchOperation;

    /// <summary>Property <c>delete_lock</c>, operation <c>set</c>.</summary>
    /// <param name="Enabled">Whether deletion is refused from now on.</param>
    public sealed record SetDeleteLock(bool Enabled) : PatchOperation;

    /// <summary>Property <c>autokill</c>, operation <c>set</c>: replaces the policy. The time goes on counting from where it did.</summary>
    /// <param name="Policy">The policy; <see langword="null"/> for none.</param>
    public sealed record SetAutokill(AutokillPolicy? Policy) : PatchOperation;
}
