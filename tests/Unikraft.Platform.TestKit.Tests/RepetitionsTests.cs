namespace Unikraft.Platform.TestKit.Tests;

public sealed class RepetitionsTests
{
    [Theory]
    [InlineData(null, 1)]
    [InlineData("", 1)]
    [InlineData("1", 1)]
    [InlineData("100", 100)]
    public void One_in_a_whole_number_is_left(string? value, int number) => Assert.Equal(number, Repetitions.Parse(value));

    [Theory]
    [InlineData("0")]
    [InlineData("-1")]
    [InlineData("1.5")]
    [InlineData("few")]
    public void Anything_else_is_refused(string value) =>
        Assert.Contains(Repetitions.Variable, Assert.Throws<InvalidOperationException>(() => Repetitions.Parse(value)).Message, StringComparison.Ordinal);

    [Theory]
    [InlineData(1)]
    [InlineData(1_000)]
    public void Something_is_always_left(int all) => Assert.InRange(Repetitions.Of(all), 1, all);

    [Theory]
    [InlineData(1, 1)]
    [InlineData(20, 20)]
    [InlineData(1_000, 20)]
    public void As_much_as_is_needed_is_left(int all, int needed) => Assert.InRange(Repetitions.Of(all, least: 20), needed, all);
}
