using System.Diagnostics.CodeAnalysis;
using System.Globalization;

namespace Unikraft.Platform;

/// <summary>Encodes, decodes, prints and parses <see cref="StopReason"/> values.</summary>
public static class StopReasons
{
    /// <summary>The bits that have a meaning; all others are reserved, ignored on input and zero on output.</summary>
    public const StopReason Meaningful =
        StopReason.Kernel | StopReason.App | StopReason.Platform | StopReason.User | StopReason.Force | StopReason.ScaleToZero;

    private const string Letters = "KAPUFZ";
    private const int ShortLength = 5;

    /// <summary>Decodes the wire value. Reserved bits are ignored.</summary>
    /// <param name="value">The value of <c>stop_reason</c>.</param>
    public static StopReason Decode(int value) => (StopReason)value & Meaningful;

    /// <summary>Encodes to the wire value. Reserved bits are zero.</summary>
    /// <param name="reason">The reason to encode.</param>
    public static int Encode(StopReason reason) => (int)(reason & Meaningful);

    /// <summary>
    /// Prints the mask as the documentation does, highest bit first and <c>-</c> for a clear bit: <c>FUP--</c>.
    /// A set scale-to-zero bit makes a sixth letter in front: <c>Z--PAK</c>.
    /// </summary>
    /// <param name="reason">The reason to print.</param>
    public static string ToMask(this StopReason reason)
    {
        int length = reason.HasFlag(StopReason.ScaleToZero) ? Letters.Length : ShortLength;
        return string.Create(length, reason, static (text, value) =>
        {
            for (int i = 0; i < text.Length; i++)
            {
                int bit = text.Length - 1 - i;
                text[i] = ((int)value >> bit & 1) != 0 ? Letters[bit] : '-';
            }
        });
    }

    /// <summary>Parses a mask of five or six letters (<c>FUP--</c>) or a decimal value (<c>28</c>).</summary>
    /// <param name="text">The text to parse.</param>
    /// <exception cref="FormatException"><paramref name="text"/> is neither.</exception>
    public static StopReason Parse(string text)
    {
        ArgumentNullException.ThrowIfNull(text);
        return TryParse(text, out StopReason reason)
            ? reason
            : throw new FormatException($"'{text}' is not a stop reason. Expected a mask such as 'FUP--' or a decimal value such as '28'.");
    }

    /// <summary>Parses a mask of five or six letters (<c>FUP--</c>) or a decimal value (<c>28</c>).</summary>
    /// <param name="text">The text to parse.</param>
    /// <param name="reason">The reason, when the text is one.</param>
    /// <returns>Whether <paramref name="text"/> is a stop reason.</returns>
    public static bool TryParse([NotNullWhen(true)] string? text, out StopReason reason)
    {
        reason = StopReason.None;
        if (string.IsNullOrEmpty(text))
        {
            return false;
        }

        if (int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out int value))
        {
            reason = Decode(value);
            return true;
        }

        if (text.Length is not (ShortLength or ShortLength + 1))
        {
            return false;
        }

        StopReason parsed = StopReason.None;
        for (int i = 0; i < text.Length; i++)
        {
            int bit = text.Length - 1 - i;
            if (text[i] == Letters[bit])
            {
                parsed |= (StopReason)(1 << bit);
            }
            else if (text[i] != '-')
            {
                return false;
            }
        }

        reason = parsed;
        return true;
    }
}
