namespace Unikraft.Platform.TestKit;

/// <summary>The source tree the tests were built from.</summary>
public static class Repository
{
    private const string Marker = "Unikraft.Platform.sln";

    /// <summary>The root folder: the nearest one above the test binaries that holds the solution.</summary>
    public static string Root { get; } = FindRoot();

    /// <summary>The path of a file or folder of the source tree.</summary>
    /// <param name="relativePath">Its path from the root.</param>
    public static string PathOf(string relativePath) => Path.Combine(Root, relativePath);

    /// <summary>The real path of a file whose path the compiler recorded. Deterministic builds record <c>/_/</c> in place of the root.</summary>
    /// <param name="compilerPath">The value of a caller file path.</param>
    public static string Resolve(string compilerPath)
    {
        ArgumentException.ThrowIfNullOrEmpty(compilerPath);
        return compilerPath.StartsWith("/_/", StringComparison.Ordinal) ? PathOf(compilerPath[3..]) : compilerPath;
    }

    private static string FindRoot()
    {
        for (DirectoryInfo? folder = new(AppContext.BaseDirectory); folder is not null; folder = folder.Parent)
        {
            if (File.Exists(Path.Combine(folder.FullName, Marker)))
            {
                return folder.FullName;
            }
        }

        throw new InvalidOperationException($"No folder above {AppContext.BaseDirectory} holds {Marker}.");
    }
}
