namespace Unikraft.Platform;

/// <summary>A snapshot that is kept in the data directory was taken on a machine that has what this host has not, so that no guest can go on with it here.</summary>
/// <remarks>The directory was moved or copied from there. What does not continue from such a snapshot can be used.</remarks>
/// <param name="path">The snapshot.</param>
/// <param name="message">What is missing here, and what to do next.</param>
public sealed class IncompatibleMachineException(string path, string message) : PlatformException(PlatformErrorCode.IncompatibleMachine, message)
{
    /// <summary>The snapshot.</summary>
    public string Path { get; } = path;
}
