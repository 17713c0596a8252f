using System.Diagnostics.CodeAnalysis;

namespace Unikraft.Platform;

/// <summary>Names one instance or checkpoint, by its name or by its UUID.</summary>
/// <remarks>Converts from a string and from a <see cref="Guid"/>. A string in the form of a UUID is one: no name may look like that.</remarks>
public readonly struct NameOrUuid : IEquatable<NameOrUuid>
{
    private readonly string? _name;
    private readonly Guid _uuid;

    private NameOrUuid(string? name, Guid uuid)
    {
        _name = name;
        _uuid = uuid;
    }

    /// <summary>The name; <see langword="null"/> when the reference is by UUID.</summary>
    public string? Name => _name;

    /// <summary>The UUID; <see langword="null"/> when the reference is by name.</summary>
    public Guid? Uuid => _name is null ? _uuid : null;

    /// <summary>Refers to a resource by name, or by UUID when the text is one.</summary>
    /// <param name="nameOrUuid">The name or UUID.</param>
    /// <exception cref="ArgumentException">The text is null or empty.</exception>
    public static NameOrUuid From(string nameOrUuid)
    {
        ArgumentException.ThrowIfNullOrEmpty(nameOrUuid);
        return Guid.TryParseExact(nameOrUuid, "D", out Guid uuid) ? new NameOrUuid(null, uuid) : new NameOrUuid(nameOrUuid, default);
    }

    /// <summary>Refers to a resource by UUID.</summary>
    /// <param name="uuid">The UUID.</param>
    public static NameOrUuid From(Guid uuid) => new(null, uuid);

    /// <inheritdoc cref="From(string)"/>
    [SuppressMessage("Usage", "CA2225:Operator overloads have named alternates", Justification = "From is the named alternate.")]
    public static implicit operator NameOrUuid(string nameOrUuid) => From(nameOrUuid);

    /// <inheritdoc cref="From(Guid)"/>
    [SuppressMessage("Usage", "CA2225:Operator overloads have named alternates", Justification = "From is the named alternate.")]
    public static implicit operator NameOrUuid(Guid uuid) => From(uuid);

    /// <summary>Compares two references.</summary>
    /// <param name="left">One.</param>
    /// <param name="right">The other.</param>
    public static bool operator ==(NameOrUuid left, NameOrUuid right) => left.Equals(right);

    /// <summary>Compares two references.</summary>
    /// <param name="left">One.</param>
    /// <param name="right">The other.</param>
    public static bool operator !=(NameOrUuid left, NameOrUuid right) => !left.Equals(right);

    /// <inheritdoc/>
    public bool Equals(NameOrUuid other) => _uuid == other._uuid && string.Equals(_name, other._name, StringComparison.Ordinal);

    /// <inheritdoc/>
    public override bool Equals([NotNullWhen(true)] object? obj) => obj is NameOrUuid other && Equals(other);

    /// <inheritdoc/>
    public override int GetHashCode() => HashCode.Combine(_name, _uuid);

    /// <summary>The name, or the UUID with hyphens.</summary>
    public override string ToString() => _name ?? _uuid.ToString("D");
}
