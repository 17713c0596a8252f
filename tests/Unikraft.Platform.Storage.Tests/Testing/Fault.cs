namespace Unikraft.Platform.Storage.Tests.Testing;

/// <summary>What goes wrong in a call.</summary>
internal abstract record Fault
{
    /// <summary>The host returns an error.</summary>
    internal sealed record Error(int Errno) : Fault;

    /// <summary>Part of what was to be written or read is, and the call says so.</summary>
    internal sealed record Short : Fault;

    /// <summary>Part of what was to be written is, and the call fails.</summary>
    internal sealed record Torn(int Errno) : Fault;

    /// <summary>The power goes out before the call.</summary>
    internal sealed record PowerCut : Fault;
}

/// <summary>The power went out: nothing of the process goes on.</summary>
internal sealed class PowerCutException() : Exception("The power went out.");
