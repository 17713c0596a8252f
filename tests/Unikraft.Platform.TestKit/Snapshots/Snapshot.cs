using System.Runtime.CompilerServices;

namespace Unikraft.Platform.TestKit;

/// <summary>Compares text with an approved copy in a file beside the test.</summary>
public static class Snapshot
{
    /// <summary>
    /// Compares with <c>ClassName.Method.verified.txt</c>. On a difference, writes <c>ClassName.Method.received.txt</c> and fails.
    /// Line endings and a newline at the end do not count.
    /// </summary>
    /// <param name="text">What the test made.</param>
    /// <param name="sourceFile">Given by the compiler: the file of the test, which is named after its class.</param>
    /// <param name="member">Given by the compiler: the test.</param>
    public static void Match(string text, [CallerFilePath] string sourceFile = "", [CallerMemberName] string member = "")
    {
        ArgumentNullException.ThrowIfNull(text);
        string source = Repository.Resolve(sourceFile);
        string stem = Path.Combine(Path.GetDirectoryName(source)!, $"{Path.GetFileNameWithoutExtension(source)}.{member}");
        string verified = stem + ".verified.txt";
        string received = stem + ".received.txt";

        string[] actual = Lines(text);
        string[] expected = File.Exists(verified) ? Lines(File.ReadAllText(verified)) : [];
        if (File.Exists(verified) && actual.AsSpan().SequenceEqual(expected))
        {
            File.Delete(received);
            return;
        }

        File.WriteAllText(received, string.Join('\n', actual) + "\n");
        string difference = File.Exists(verified) ? Describe(expected, actual) : "There is no approved text yet.";
        Assert.Fail($"""
            {Path.GetFileName(verified)} does not match. {difference}
            If the new text is right, approve it:
              mv '{received}' '{verified}'
            """);
    }

    private static string[] Lines(string text) => text.ReplaceLineEndings("\n").TrimEnd('\n').Split('\n');

    private static string Describe(string[] expected, string[] actual)
    {
        int line = expected.AsSpan().CommonPrefixLength(actual, StringComparer.Ordinal);
        return $"""
            First difference in line {line + 1}:
              approved: {LineAt(expected, line)}
              received: {LineAt(actual, line)}
            """;
    }

    private static string LineAt(string[] lines, int line) => line < lines.Length ? lines[line] : "(end of text)";
}
