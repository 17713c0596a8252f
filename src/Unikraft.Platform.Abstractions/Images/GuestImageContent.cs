namespace Unikraft.Platform;

/// <summary>What an image consists of. A flat guest is its kernel alone.</summary>
/// <param name="Kernel">The kernel or the flat guest.</param>
public sealed record GuestImageContent(ReadOnlyMemory<byte> Kernel)
{
    /// <summary>The initial RAM disk of a kernel. Default: empty, none.</summary>
    public ReadOnlyMemory<byte> Initrd { get; init; }

    /// <summary>The command line of a kernel, before arguments are added to it. Default: <see langword="null"/>, that of the backend.</summary>
    public string? CommandLine { get; init; }

    /// <summary>The arguments of an instance that is created without any. Default: none.</summary>
    public IReadOnlyList<string> Args { get; init; } = [];

    /// <summary>The environment, to which that of the instance is added. Default: empty.</summary>
    public IReadOnlyDictionary<string, string> Env { get; init; } = new Dictionary<string, string>(StringComparer.Ordinal);
}
