using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Security.Cryptography;

namespace Unikraft.Platform.Kvm.Snapshots.Files;

/// <summary>A SHA-256 checksum.</summary>
[InlineArray(SizeInBytes)]
internal struct Digest : IEquatable<Digest>
{
    internal const int SizeInBytes = SHA256.HashSizeInBytes;

    private byte _first;

    internal static Digest Compute(ReadOnlySpan<byte> bytes)
    {
        Digest digest = default;
        SHA256.HashData(bytes, digest);
        return digest;
    }

    internal static Digest Read(ReadOnlySpan<byte> bytes) => MemoryMarshal.Read<Digest>(bytes);

    internal readonly void Write(Span<byte> destination) => ((ReadOnlySpan<byte>)this).CopyTo(destination);

    public readonly bool Equals(Digest other) => ((ReadOnlySpan<byte>)this).SequenceEqual(other);

    public override readonly bool Equals(object? obj) => obj is Digest other && Equals(other);

    public override readonly int GetHashCode() => MemoryMarshal.Read<int>(this);

    public override readonly string ToString() => Convert.ToHexStringLower(this);

    public static bool operator ==(Digest left, Digest right) => left.Equals(right);

    public static bool operator !=(Digest left, Digest right) => !left.Equals(right);
}
