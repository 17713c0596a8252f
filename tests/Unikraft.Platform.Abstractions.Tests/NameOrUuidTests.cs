namespace Unikraft.Platform.Abstractions.Tests;

public sealed class NameOrUuidTests
{
    private static readonly Guid Uuid = new("77d0316a-fbbe-488d-8618-5bf7a612477a");

    [Fact]
    public void A_text_in_the_form_of_a_uuid_is_one()
    {
        NameOrUuid reference = "77D0316A-fbbe-488d-8618-5bf7a612477a";

        Assert.Null(reference.Name);
        Assert.Equal(Uuid, reference.Uuid);
        Assert.Equal(NameOrUuid.From(Uuid), reference);
        Assert.Equal("77d0316a-fbbe-488d-8618-5bf7a612477a", reference.ToString());
    }

    [Theory]
    [InlineData("my-instance")]
    [InlineData("77d0316afbbe488d86185bf7a612477a")]
    [InlineData("{77d0316a-fbbe-488d-8618-5bf7a612477a}")]
    public void Any_other_text_is_a_name(string name)
    {
        NameOrUuid reference = name;

        Assert.Equal(name, reference.Name);
        Assert.Null(reference.Uuid);
        Assert.Equal(name, reference.ToString());
    }

    [Fact]
    public void References_are_equal_when_they_name_the_same()
    {
        NameOrUuid byName = "a";

        Assert.True(byName == NameOrUuid.From("a"));
        Assert.True(byName != NameOrUuid.From("A"));
        Assert.True(byName != Uuid);
        Assert.Equal(byName.GetHashCode(), NameOrUuid.From("a").GetHashCode());
        Assert.False(byName.Equals((object)"a"));
        Assert.False(byName == default);
    }

    [Fact]
    public void Nothing_names_nothing()
    {
        Assert.Throws<ArgumentException>(() => NameOrUuid.From(""));
        Assert.Throws<ArgumentNullException>(() => NameOrUuid.From(null!));
    }
}
