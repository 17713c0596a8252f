namespace Unikraft.Platform.TestKit;

/// <summary>
/// Implemented by an attribute on a test class: what the host must have so that the contract facts and theories of the class can run.
/// </summary>
public interface IRequirement
{
    /// <summary>Why the tests cannot run on this host; <see langword="null"/> when they can. Asked several times, so it should be cheap.</summary>
    string? UnmetReason { get; }
}
