namespace Unikraft.Platform;

/// <summary>How to attach to a console.</summary>
public sealed record ConsoleOptions
{
    /// <summary>Whether the output begins with what the log still holds. Default: false, with what is written after attaching.</summary>
    public bool FromStart { get; init; }
}
