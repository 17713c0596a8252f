using System.Globalization;

namespace Unikraft.Platform.Abstractions.Tests;

public sealed class StopCodeTests
{
    private const uint Values = 1u << 24;

    [Fact]
    public void The_documented_out_of_memory_code_has_its_fields_and_both_text_forms()
    {
        StopCode code = new(0x000C7F04);

        Assert.Equal(818948u, code.Value);
        Assert.Equal(StopCodeReason.PageFault, code.Reason);
        Assert.Equal(12, code.Errno);
        Assert.Equal(127, code.InitLevel);
        Assert.False(code.IsShuttingDown);
        Assert.False(code.IsClean);
        Assert.Equal("0x000C7F04", code.ToString());
        Assert.Equal("818948", code.ToString("D", CultureInfo.InvariantCulture));
        Assert.Equal("PGFAULT errno=12 initlvl=127", code.Describe());
        Assert.Equal(code, new StopCode(StopCodeReason.PageFault, errno: 12, StopCode.AppInitLevel));
        Assert.Equal(code, StopCode.Parse("0x000C7F04"));
        Assert.Equal(code, StopCode.Parse("818948"));
    }

    [Fact]
    public void All_values_decode_into_their_fields_and_encode_from_them()
    {
        uint wrong = FirstWhere(static value =>
        {
            // The fields by arithmetic, where the decoder shifts and masks.
            uint reason = value % 256;
            uint initLevel = value / 256 % 128;
            bool isShuttingDown = value / 32768 % 2 == 1;
            uint errno = value / 65536;
            StopCode code = new(value);
            return code.Value != value
                || (uint)code.Reason != reason
                || (uint)code.InitLevel != initLevel
                || code.IsShuttingDown != isShuttingDown
                || (uint)code.Errno != errno
                || code.IsClean != (reason == 0)
                || code != new StopCode((StopCodeReason)reason, (int)errno, (int)initLevel, isShuttingDown);
        });

        Assert.True(wrong == Values, $"0x{wrong:X8} is decoded or encoded wrongly.");
    }

    [Fact]
    public void All_values_survive_both_text_forms()
    {
        uint wrong = FirstWhere(static value =>
        {
            StopCode code = new(value);
            Span<char> text = stackalloc char[16];
            return !(code.TryFormat(text, out int hex, "X", null) && hex == 10
                && StopCode.TryParse(text[..hex], null, out StopCode fromHex) && fromHex == code
                && code.TryFormat(text, out int digits, "D", null)
                && StopCode.TryParse(text[..digits], null, out StopCode fromDecimal) && fromDecimal == code);
        });

        Assert.True(wrong == Values, $"0x{wrong:X8} is printed or parsed wrongly.");
    }

    [Fact]
    public void Reserved_bits_are_ignored_on_input_and_zero_on_output()
    {
        uint wrong = FirstWhere(static value =>
        {
            // Every value with one pattern, and every pattern with many values.
            uint reserved = (value * 2654435761u >> 13 & 0xFF) << 24;
            StopCode dirty = new(value | reserved);
            return dirty.Value != value || dirty != new StopCode(value) || dirty.GetHashCode() != new StopCode(value).GetHashCode();
        });

        Assert.True(wrong == Values, $"0x{wrong:X8} lets reserved bits through.");
        for (uint reserved = 0; reserved <= 0xFF; reserved++)
        {
            Assert.Equal("0x000C7F04", StopCode.Parse($"0x{reserved:X2}0C7F04").ToString());
            Assert.Equal(818948u, StopCode.Parse($"{(reserved << 24) + 818948}").Value);
        }
    }

    [Theory]
    [InlineData("0X000c7f04")]
    [InlineData("0xC7F04")]
    [InlineData("0000818948")]
    public void Other_spellings_of_the_same_number_are_parsed(string text) => Assert.Equal(818948u, StopCode.Parse(text).Value);

    [Theory]
    [InlineData("")]
    [InlineData("0x")]
    [InlineData("x0C")]
    [InlineData("C7F04")]
    [InlineData("0x1000C7F04")]
    [InlineData("4294967296")]
    [InlineData("-1")]
    [InlineData("+1")]
    [InlineData(" 1")]
    [InlineData("1 ")]
    [InlineData("1.0")]
    [InlineData("1,000")]
    [InlineData("0x-1")]
    [InlineData("PGFAULT")]
    public void What_is_not_a_stop_code_is_refused(string text)
    {
        Assert.False(StopCode.TryParse(text, null, out StopCode code));
        Assert.Equal(default, code);
        FormatException error = Assert.Throws<FormatException>(() => StopCode.Parse(text));
        Assert.Contains($"'{text}' is not a stop code", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Null_is_no_stop_code()
    {
        Assert.False(StopCode.TryParse(null, null, out _));
        Assert.Throws<ArgumentNullException>(() => StopCode.Parse(null!));
    }

    [Theory]
    [InlineData(-1, 0, 0)]
    [InlineData(256, 0, 0)]
    [InlineData(0, -1, 0)]
    [InlineData(0, 256, 0)]
    [InlineData(0, 0, -1)]
    [InlineData(0, 0, 128)]
    public void A_field_that_does_not_fit_is_refused(int reason, int errno, int initLevel) =>
        Assert.Throws<ArgumentOutOfRangeException>(() => new StopCode((StopCodeReason)reason, errno, initLevel));

    [Theory]
    [InlineData(0, "OK errno=0 initlvl=127")]
    [InlineData(1, "EXP errno=0 initlvl=127")]
    [InlineData(2, "MATH errno=0 initlvl=127")]
    [InlineData(3, "INVLOP errno=0 initlvl=127")]
    [InlineData(4, "PGFAULT errno=0 initlvl=127")]
    [InlineData(5, "SEGFAULT errno=0 initlvl=127")]
    [InlineData(6, "HWERR errno=0 initlvl=127")]
    [InlineData(7, "SECERR errno=0 initlvl=127")]
    [InlineData(8, "reason=8 errno=0 initlvl=127")]
    [InlineData(255, "reason=255 errno=0 initlvl=127")]
    public void Every_reason_has_its_documented_symbol(int reason, string description) =>
        Assert.Equal(description, new StopCode((StopCodeReason)reason).Describe());

    [Fact]
    public void The_shutdown_bit_is_described() =>
        Assert.Equal(
            "EXP errno=110 initlvl=127 shutting down",
            new StopCode(StopCodeReason.Exception, errno: 110, isShuttingDown: true).Describe());

    [Fact]
    public void Formats_other_than_hexadecimal_and_decimal_are_refused()
    {
        StopCode code = new(0x000C7F04);
        char[] room = new char[10];

        Assert.Equal("0x000C7F04", $"{code}");
        Assert.Equal("0x000C7F04", $"{code:X}");
        Assert.Equal("818948", $"{code:D}");
        Assert.Throws<FormatException>(() => code.ToString("x8", CultureInfo.InvariantCulture));
        Assert.Throws<FormatException>(() => code.TryFormat(room, out _, "N", null));
    }

    [Fact]
    public void Too_little_room_is_reported_and_nothing_is_written()
    {
        StopCode code = new(0x000C7F04);

        Assert.False(code.TryFormat(new char[9], out int hex, "X", null));
        Assert.Equal(0, hex);
        Assert.False(code.TryFormat(new char[5], out int digits, "D", null));
        Assert.Equal(0, digits);
    }

    [Fact]
    public void The_default_is_a_clean_stop_at_level_0()
    {
        Assert.True(default(StopCode).IsClean);
        Assert.Equal("0x00000000", default(StopCode).ToString());
        Assert.False(default(StopCode).Equals((object)0u));
    }

    private static uint FirstWhere(Predicate<uint> isWrong)
    {
        for (uint value = 0; value < Values; value++)
        {
            if (isWrong(value))
            {
                return value;
            }
        }

        return Values;
    }
}
