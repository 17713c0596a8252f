using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Security.Cryptography;

namespace Unikraft.Platform.Storage;

/// <summary>A SHA-256 checksum.</summary>
[InlineArray(Size)]
internal struct Checksum : IEquatable<Checksum>
{
    internal const int Size = SHA256.HashSizeInBytes;

    /// <summary>How much of it stands for small things that a whole one covers again.</summary>
    internal const int ShortSize = 16;

    private byte _first;

    internal static Checksum Of(ReadOnlySpan<byte> bytes)
    {
        Checksum checksum = default;
        SHA256.HashData(bytes, checksum);
        return checksum;
    }

    internal static Checksum Of(ReadOnlySpan<byte> first, ReadOnlySpan<byte> second, ReadOnlySpan<byte> third = default)
    {
        using IncrementalHash hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        hash.AppendData(first);
        hash.AppendData(second);
        hash.AppendData(third);
        Checksum checksum = default;
        hash.GetHashAndReset(checksum);
        return checksum;
    }

    internal static Checksum Read(ReadOnlySpan<byte> bytes) => MemoryMarshal.Read<Checksum>(bytes);

    internal readonly void Write(Span<byte> destination) => ((ReadOnlySpan<byte>)this).CopyTo(destination);

    internal readonly void WriteShort(Span<byte> destination) => ((ReadOnlySpan<byte>)this)[..ShortSize].CopyTo(destination);

    /// <summary>Whether the beginning of it is what is written there.</summary>
    internal readonly bool IsShort(ReadOnlySpan<byte> written) => ((ReadOnlySpan<byte>)this)[..ShortSize].SequenceEqual(written[..ShortSize]);

    public readonly bool Equals(Checksum other) => ((ReadOnlySpan<byte>)this).SequenceEqual(other);

    public override readonly bool Equals(object? obj) => obj is Checksum other && Equals(other);

    public override readonly int GetHashCode() => MemoryMarshal.Read<int>(this);

    public override readonly string ToString() => Convert.ToHexStringLower(this);

    public static bool operator ==(Checksum left, Checksum right) => left.Equals(right);

    public static bool operator !=(Checksum left, Checksum right) => !left.Equals(right);
}
