namespace Unikraft.Platform.Abstractions.Tests;

public sealed class StopReasonTests
{
    private const int Values = 1 << 6;

    public static TheoryData<int, string, StopReason> DocumentedExamples => new()
    {
        { 28, "FUP--", StopReason.Force | StopReason.User | StopReason.Platform },
        { 15, "-UPAK", StopReason.User | StopReason.Platform | StopReason.App | StopReason.Kernel },
        { 13, "-UP-K", StopReason.User | StopReason.Platform | StopReason.Kernel },
        { 7, "--PAK", StopReason.Platform | StopReason.App | StopReason.Kernel },
        { 3, "---AK", StopReason.App | StopReason.Kernel },
        { 1, "----K", StopReason.Kernel },
        { 0, "-----", StopReason.None },
    };

    [Theory]
    [MemberData(nameof(DocumentedExamples))]
    public void Every_documented_example_decodes_encodes_prints_and_parses(int value, string mask, StopReason reason)
    {
        Assert.Equal(reason, StopReasons.Decode(value));
        Assert.Equal(value, StopReasons.Encode(reason));
        Assert.Equal(mask, reason.ToMask());
        Assert.Equal(reason, StopReasons.Parse(mask));
        Assert.Equal(reason, StopReasons.Parse($"{value}"));
    }

    [Fact]
    public void All_values_survive_encoding_and_both_text_forms()
    {
        HashSet<string> masks = new(StringComparer.Ordinal);
        for (int value = 0; value < Values; value++)
        {
            StopReason reason = StopReasons.Decode(value);
            string mask = reason.ToMask();

            Assert.Equal(value, StopReasons.Encode(reason));
            Assert.Equal(reason, StopReasons.Parse(mask));
            Assert.Equal(reason, StopReasons.Parse($"{value}"));
            Assert.True(masks.Add(mask), $"{mask} stands for two values.");
            Assert.Equal(ExpectedMask(value), mask);
        }
    }

    [Fact]
    public void The_scale_to_zero_bit_makes_a_sixth_letter()
    {
        Assert.Equal("Z--PAK", StopReasons.Decode(32 | 7).ToMask());
        Assert.Equal("Z-----", StopReason.ScaleToZero.ToMask());
        Assert.Equal(StopReason.Platform, StopReasons.Parse("---P--"));
    }

    [Fact]
    public void Reserved_bits_are_ignored_on_input_and_zero_on_output()
    {
        for (int bit = 6; bit < 32; bit++)
        {
            for (int value = 0; value < Values; value++)
            {
                int dirty = value | 1 << bit;
                Assert.Equal((StopReason)value, StopReasons.Decode(dirty));
                Assert.Equal(value, StopReasons.Encode((StopReason)dirty));
                Assert.Equal(((StopReason)value).ToMask(), ((StopReason)dirty).ToMask());
                if (dirty > 0)
                {
                    Assert.Equal((StopReason)value, StopReasons.Parse($"{dirty}"));
                }
            }
        }
    }

    [Theory]
    [InlineData("")]
    [InlineData("-")]
    [InlineData("FUP-")]
    [InlineData("FUP----")]
    [InlineData("fup--")]
    [InlineData("PUF--")]
    [InlineData("-FUP-")]
    [InlineData("--UP-")]
    [InlineData("FUPAKZ")]
    [InlineData(" 28")]
    [InlineData("28 ")]
    [InlineData("-1")]
    [InlineData("+28")]
    [InlineData("0x1C")]
    [InlineData("4294967296")]
    [InlineData("FUP--\0")]
    public void What_is_not_a_stop_reason_is_refused(string text)
    {
        Assert.False(StopReasons.TryParse(text, out StopReason reason));
        Assert.Equal(StopReason.None, reason);
        FormatException error = Assert.Throws<FormatException>(() => StopReasons.Parse(text));
        Assert.Contains($"'{text}' is not a stop reason", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Null_is_no_stop_reason()
    {
        Assert.False(StopReasons.TryParse(null, out _));
        Assert.Throws<ArgumentNullException>(() => StopReasons.Parse(null!));
    }

    private static string ExpectedMask(int value)
    {
        string bits = Convert.ToString(value, toBase: 2).PadLeft(value >= 32 ? 6 : 5, '0');
        return string.Concat(bits.Zip("ZFUPAK"[^bits.Length..], (bit, letter) => bit == '1' ? letter : '-'));
    }
}
