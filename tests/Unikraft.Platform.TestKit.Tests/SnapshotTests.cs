using Xunit.Sdk;

namespace Unikraft.Platform.TestKit.Tests;

public sealed class SnapshotTests : IDisposable
{
    private readonly string _folder = Directory.CreateTempSubdirectory("snapshot-").FullName;

    private string Source => Path.Combine(_folder, "Sample.cs");

    private string Verified => Path.Combine(_folder, "Sample.Test.verified.txt");

    private string Received => Path.Combine(_folder, "Sample.Test.received.txt");

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    [Fact]
    public void Approved_text_matches_and_old_received_text_goes()
    {
        File.WriteAllText(Verified, "one\r\ntwo\n");
        File.WriteAllText(Received, "old");

        Snapshot.Match("one\ntwo", Source, "Test");

        Assert.False(File.Exists(Received));
    }

    [Fact]
    public void A_difference_fails_names_the_line_and_leaves_the_received_text()
    {
        File.WriteAllText(Verified, "one\ntwo\n");

        FailException error = Assert.Throws<FailException>(() => Snapshot.Match("one\nthree\n", Source, "Test"));

        Assert.Contains("line 2", error.Message, StringComparison.Ordinal);
        Assert.Contains("approved: two", error.Message, StringComparison.Ordinal);
        Assert.Contains("received: three", error.Message, StringComparison.Ordinal);
        Assert.Equal("one\nthree\n", File.ReadAllText(Received));
    }

    [Fact]
    public void Text_that_was_never_approved_fails()
    {
        Assert.Throws<FailException>(() => Snapshot.Match("", Source, "Test"));

        Assert.True(File.Exists(Received));
    }
}
