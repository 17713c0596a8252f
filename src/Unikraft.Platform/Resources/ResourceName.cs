using System.Buffers;
using System.Security.Cryptography;

namespace Unikraft.Platform.Resources;

/// <summary>The rules for the names of instances and checkpoints.</summary>
internal static class ResourceName
{
    private const int MaxLength = 63;
    private const int SuffixLength = 5;
    private const string SuffixAlphabet = "abcdefghijklmnopqrstuvwxyz0123456789";
    private const string Fallback = "instance";

    private static readonly SearchValues<char> Allowed =
        SearchValues.Create("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-");

    /// <exception cref="InvalidRequestException">The name breaks the rules.</exception>
    public static void Require(string name)
    {
        string? broken = name switch
        {
            "" => "it is empty",
            { Length: > MaxLength } => $"it is longer than {MaxLength} characters",
            _ when name.AsSpan().ContainsAnyExcept(Allowed) => "only letters, digits and hyphens are allowed",
            ['-', ..] or [.., '-'] => "it must begin and end with a letter or digit",
            _ when Guid.TryParseExact(name, "D", out _) => "it has the form of a UUID",
            _ => null,
        };
        if (broken is not null)
        {
            throw new InvalidRequestException($"Invalid name '{name}': {broken}.");
        }
    }

    /// <summary>Makes a name of something's name and five random characters.</summary>
    public static string Generate(string baseName)
    {
        int room = MaxLength - SuffixLength - 1;
        string stem = baseName.Length <= room ? baseName : baseName[..room].TrimEnd('-');
        return $"{stem}-{RandomNumberGenerator.GetString(SuffixAlphabet, SuffixLength)}";
    }

    /// <summary>What the app of an image is called: its file name, as far as a name may contain it.</summary>
    public static string OfImage(GuestImage image)
    {
        string file = Path.GetFileNameWithoutExtension(image.Name);
        string app = string.Concat(file.Select(c => Allowed.Contains(c) ? c : '-')).Trim('-');
        return app.Length == 0 ? Fallback : app;
    }
}
