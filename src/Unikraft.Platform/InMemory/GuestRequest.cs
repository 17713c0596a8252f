namespace Unikraft.Platform.InMemory;

/// <summary>What a guest asks the platform for, and waits.</summary>
internal enum GuestRequest
{
    /// <summary>To become a template.</summary>
    Template,

    /// <summary>To be forked.</summary>
    Fork,
}
