namespace Unikraft.Platform.Contracts.Modeling;

/// <summary>A platform does not do what the model does.</summary>
/// <param name="message">The script, in code and in words.</param>
/// <param name="script">The script.</param>
public sealed class ModelMismatchException(string message, IReadOnlyList<ModelCommand> script) : Exception(message)
{
    /// <summary>The shortest script that was found.</summary>
    public IReadOnlyList<ModelCommand> Script { get; } = script;
}
