using System.Diagnostics;

namespace Unikraft.Platform.Storage.Tests.Testing;

/// <summary>A folder as it is found when the process that works in it was killed.</summary>
internal static class KilledFolder
{
    /// <summary>Copies a folder, whose files may be open.</summary>
    public static void Copy(string from, string to)
    {
        Directory.CreateDirectory(to);

        // A tool of its own, which does not mind the locks on files that are open.
        using Process copy = Process.Start("cp", ["-R", $"{from}/.", to]);
        copy.WaitForExit();
        Assert.Equal(0, copy.ExitCode);
    }
}
