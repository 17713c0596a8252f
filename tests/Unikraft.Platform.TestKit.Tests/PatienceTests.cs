namespace Unikraft.Platform.TestKit.Tests;

public sealed class PatienceTests
{
    [Theory]
    [InlineData(null, 1)]
    [InlineData("", 1)]
    [InlineData("1", 1)]
    [InlineData("20", 20)]
    public void The_factor_is_a_whole_number(string? value, int factor) => Assert.Equal(factor, Patience.Parse(value));

    [Theory]
    [InlineData("0")]
    [InlineData("-1")]
    [InlineData("1.5")]
    [InlineData("much")]
    public void Anything_else_is_refused(string value) =>
        Assert.Contains(Patience.Variable, Assert.Throws<InvalidOperationException>(() => Patience.Parse(value)).Message, StringComparison.Ordinal);
}
