using Unikraft.Platform.Resources;

namespace Unikraft.Platform.Tests;

public sealed class ResourceNameTests
{
    [Theory]
    [InlineData("a")]
    [InlineData("7")]
    [InlineData("Web-Server-01")]
    [InlineData("a--b")]
    [InlineData("0f8fad5b-d9cb-469f-a165-70867728950")]
    [InlineData("x23456789012345678901234567890123456789012345678901234567890123")]
    public void Good_names_are_accepted(string name) => ResourceName.Require(name);

    [Theory]
    [InlineData("", "Invalid name '': it is empty.")]
    [InlineData("-a", "Invalid name '-a': it must begin and end with a letter or digit.")]
    [InlineData("a-", "Invalid name 'a-': it must begin and end with a letter or digit.")]
    [InlineData("a b", "Invalid name 'a b': only letters, digits and hyphens are allowed.")]
    [InlineData("0F8FAD5B-D9CB-469F-A165-70867728950E", "Invalid name '0F8FAD5B-D9CB-469F-A165-70867728950E': it has the form of a UUID.")]
    public void Bad_names_are_refused_with_the_rule(string name, string message) =>
        Assert.Equal(message, Assert.Throws<InvalidRequestException>(() => ResourceName.Require(name)).Message);

    [Theory]
    [InlineData("/guests/bin/hello.elf", "hello")]
    [InlineData("nginx:latest", "nginx-latest")]
    [InlineData("My App_v1.2.elf", "My-App-v1-2")]
    [InlineData("---", "instance")]
    [InlineData("日本", "instance")]
    public void The_app_of_an_image_is_its_file_name(string image, string app) =>
        Assert.Equal(app, ResourceName.OfImage(GuestImage.FromBytes(image, default)));

    [Theory]
    [InlineData(1)]
    [InlineData(56)]
    [InlineData(57)]
    [InlineData(58)]
    [InlineData(200)]
    public void Generated_names_follow_the_rules(int length)
    {
        string stem = string.Concat(Enumerable.Repeat("ab-", length))[..length].TrimEnd('-');

        string name = ResourceName.Generate(stem);

        ResourceName.Require(name);
        Assert.Matches("-[a-z0-9]{5}$", name);
        Assert.NotEqual(name, ResourceName.Generate(stem));
    }
}
