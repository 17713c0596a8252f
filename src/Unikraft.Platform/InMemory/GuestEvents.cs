using System.Diagnostics.CodeAnalysis;

namespace Unikraft.Platform.InMemory;

/// <summary>What a scripted guest can wait for.</summary>
[Flags]
[SuppressMessage("Naming", "CA1711:Identifiers should not have incorrect suffix", Justification = "The guest ABI's own word.")]
public enum GuestEvents
{
    /// <summary>Nothing.</summary>
    None = 0,

    /// <summary>The caller wants the instance to stop. Once pending, always pending.</summary>
    StopRequested = 1 << 0,

    /// <summary>Input can be read. Pending until all of it is read.</summary>
    ConsoleInput = 1 << 1,

    /// <summary><see cref="ScriptedGuestContext.Wake"/> was called. Cleared by the wait that it ends.</summary>
    Wake = 1 << 2,
}
