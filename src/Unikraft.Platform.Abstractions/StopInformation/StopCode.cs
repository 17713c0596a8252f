using System.Diagnostics.CodeAnalysis;
using System.Globalization;

namespace Unikraft.Platform;

/// <summary>
/// The code with which a guest's kernel stopped: the <c>stop_code</c> of the Unikraft Cloud instances API.
/// </summary>
/// <remarks>
/// Layout: bits 0-7 <c>reason</c>, 8-14 <c>initlvl</c>, 15 <c>shutdown_bit</c>, 16-23 <c>errno</c>, 24-31 reserved.
/// Reserved bits are ignored on input and zero on output. The numeric text forms (<c>0x000C7F04</c> and <c>818948</c>) are
/// both parsed; <see cref="ToString()"/> prints the hexadecimal one.
/// </remarks>
public readonly struct StopCode : IEquatable<StopCode>, ISpanParsable<StopCode>, ISpanFormattable
{
    /// <summary>The init level at which the guest executes the app.</summary>
    public const int AppInitLevel = 127;

    private const uint MeaningfulBits = 0x00FF_FFFF;
    private const int InitLevelShift = 8;
    private const uint InitLevelMask = 0x7F;
    private const uint ShutdownBit = 1 << 15;
    private const int ErrnoShift = 16;
    private const int HexLength = 10;

    private readonly uint _value;

    /// <summary>Decodes a wire value. Reserved bits are ignored.</summary>
    /// <param name="value">The value of <c>stop_code</c>.</param>
    public StopCode(uint value) => _value = value & MeaningfulBits;

    /// <summary>Puts a stop code together.</summary>
    /// <param name="reason">Why the kernel stopped, 0 to 255.</param>
    /// <param name="errno">A Linux error number, 0 to 255.</param>
    /// <param name="initLevel">The initialisation or shutdown phase, 0 to 127; 127 means the app was executing.</param>
    /// <param name="isShuttingDown">Whether the system was shutting down.</param>
    /// <exception cref="ArgumentOutOfRangeException">A field does not fit into its bits.</exception>
    public StopCode(StopCodeReason reason, int errno = 0, int initLevel = AppInitLevel, bool isShuttingDown = false)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThan((uint)reason, byte.MaxValue, nameof(reason));
        ArgumentOutOfRangeException.ThrowIfGreaterThan((uint)errno, byte.MaxValue, nameof(errno));
        ArgumentOutOfRangeException.ThrowIfGreaterThan((uint)initLevel, InitLevelMask, nameof(initLevel));
        _value = (uint)reason | (uint)initLevel << InitLevelShift | (isShuttingDown ? ShutdownBit : 0) | (uint)errno << ErrnoShift;
    }

    /// <summary>Why the kernel stopped.</summary>
    public StopCodeReason Reason => (StopCodeReason)(byte)_value;

    /// <summary>A Linux error number that tells more about the cause; 0 when there is none.</summary>
    public int Errno => (int)(_value >> ErrnoShift);

    /// <summary>The initialisation or shutdown phase at the time of the stop, 0 to 127; 127 means that the app was executing.</summary>
    public int InitLevel => (int)(_value >> InitLevelShift & InitLevelMask);

    /// <summary>Whether the system was shutting down.</summary>
    public bool IsShuttingDown => (_value & ShutdownBit) != 0;

    /// <summary>Whether the shutdown was clean. The other fields say nothing about a crash in that case.</summary>
    public bool IsClean => Reason == StopCodeReason.Ok;

    /// <summary>The wire value, reserved bits zero.</summary>
    public uint Value => _value;

    /// <summary>Parses <c>0x000C7F04</c> or <c>818948</c>.</summary>
    /// <param name="s">The text.</param>
    /// <exception cref="FormatException">The text is neither.</exception>
    public static StopCode Parse(string s) => Parse(s, provider: null);

    /// <summary>Parses <c>0x000C7F04</c> or <c>818948</c>.</summary>
    /// <param name="s">The text.</param>
    /// <param name="provider">Not used.</param>
    /// <exception cref="FormatException">The text is neither.</exception>
    public static StopCode Parse(string s, IFormatProvider? provider)
    {
        ArgumentNullException.ThrowIfNull(s);
        return Parse(s.AsSpan(), provider);
    }

    /// <inheritdoc cref="Parse(string, IFormatProvider?)"/>
    public static StopCode Parse(ReadOnlySpan<char> s, IFormatProvider? provider) => TryParse(s, provider, out StopCode code)
        ? code
        : throw new FormatException($"'{s}' is not a stop code. Expected a number of 32 bits such as '0x000C7F04' or '818948'.");

    /// <summary>Parses <c>0x000C7F04</c> or <c>818948</c>.</summary>
    /// <param name="s">The text.</param>
    /// <param name="provider">Not used.</param>
    /// <param name="result">The stop code, when the text is one.</param>
    /// <returns>Whether the text is a stop code.</returns>
    public static bool TryParse([NotNullWhen(true)] string? s, IFormatProvider? provider, out StopCode result) =>
        TryParse(s.AsSpan(), provider, out result);

    /// <inheritdoc cref="TryParse(string?, IFormatProvider?, out StopCode)"/>
    public static bool TryParse(ReadOnlySpan<char> s, IFormatProvider? provider, out StopCode result)
    {
        bool isHex = s.StartsWith("0x", StringComparison.OrdinalIgnoreCase);
        bool parsed = isHex
            ? uint.TryParse(s[2..], NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out uint value)
            : uint.TryParse(s, NumberStyles.None, CultureInfo.InvariantCulture, out value);
        result = parsed ? new StopCode(value) : default;
        return parsed;
    }

    /// <summary>Compares two stop codes by their meaningful bits.</summary>
    /// <param name="left">One.</param>
    /// <param name="right">The other.</param>
    public static bool operator ==(StopCode left, StopCode right) => left.Equals(right);

    /// <summary>Compares two stop codes by their meaningful bits.</summary>
    /// <param name="left">One.</param>
    /// <param name="right">The other.</param>
    public static bool operator !=(StopCode left, StopCode right) => !left.Equals(right);

    /// <inheritdoc/>
    public bool Equals(StopCode other) => _value == other._value;

    /// <inheritdoc/>
    public override bool Equals([NotNullWhen(true)] object? obj) => obj is StopCode other && Equals(other);

    /// <inheritdoc/>
    public override int GetHashCode() => (int)_value;

    /// <summary>Prints the hexadecimal form, for example <c>0x000C7F04</c>.</summary>
    public override string ToString() => $"0x{_value:X8}";

    /// <summary>Prints the hexadecimal form (<c>null</c>, empty, <c>X</c>) or the decimal one (<c>D</c>).</summary>
    /// <param name="format"><c>X</c> or <c>D</c>.</param>
    /// <param name="formatProvider">Not used.</param>
    /// <exception cref="FormatException">The format is neither.</exception>
    public string ToString(string? format, IFormatProvider? formatProvider) => format switch
    {
        null or "" or "X" => ToString(),
        "D" => _value.ToString(CultureInfo.InvariantCulture),
        _ => throw new FormatException($"'{format}' is not a format of a stop code. Use 'X' or 'D'."),
    };

    /// <inheritdoc/>
    public bool TryFormat(Span<char> destination, out int charsWritten, ReadOnlySpan<char> format, IFormatProvider? provider)
    {
        if (format is "D")
        {
            return _value.TryFormat(destination, out charsWritten, "D", CultureInfo.InvariantCulture);
        }

        if (format is not ("" or "X"))
        {
            throw new FormatException($"'{format}' is not a format of a stop code. Use 'X' or 'D'.");
        }

        charsWritten = 0;
        if (destination.Length < HexLength)
        {
            return false;
        }

        "0x".CopyTo(destination);
        bool written = _value.TryFormat(destination[2..], out int digits, "X8", CultureInfo.InvariantCulture);
        charsWritten = digits + 2;
        return written;
    }

    /// <summary>Prints the code in words, with the symbols of the instances API: <c>PGFAULT errno=12 initlvl=127</c>.</summary>
    public string Describe()
    {
        string reason = Reason switch
        {
            StopCodeReason.Ok => "OK",
            StopCodeReason.Exception => "EXP",
            StopCodeReason.Math => "MATH",
            StopCodeReason.InvalidOperation => "INVLOP",
            StopCodeReason.PageFault => "PGFAULT",
            StopCodeReason.SegmentationFault => "SEGFAULT",
            StopCodeReason.HardwareError => "HWERR",
            StopCodeReason.SecurityViolation => "SECERR",
            _ => string.Create(CultureInfo.InvariantCulture, $"reason={(int)Reason}"),
        };
        return string.Create(
            CultureInfo.InvariantCulture,
            $"{reason} errno={Errno} initlvl={InitLevel}{(IsShuttingDown ? " shutting down" : "")}");
    }
}
