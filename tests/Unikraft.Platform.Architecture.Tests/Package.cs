using System.Reflection;
using System.Text.RegularExpressions;
using System.Xml.Linq;
using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Architecture.Tests;

/// <summary>A package of ours: its project file, its sources and its assembly.</summary>
internal sealed partial class Package
{
    public const string Prefix = "Unikraft.Platform";

    private Package(string name, XDocument project)
    {
        Name = name;
        Project = project;
    }

    public static IReadOnlyList<Package> All { get; } =
        [.. Directory.EnumerateDirectories(Repository.PathOf("src")).Select(Path.GetFileName).Order(StringComparer.Ordinal).Select(Load!)];

    public string Name { get; }

    public Assembly Assembly => Assembly.Load(Name);

    public XDocument Project { get; }

    public static Package Load(string name) => new(name, XDocument.Load(Repository.PathOf($"src/{name}/{name}.csproj")));

    public static Package Parse(string name, string project) => new(name, XDocument.Parse(project));

    /// <summary>The names of the projects and packages that the project file refers to.</summary>
    public IEnumerable<string> References(string kind) => Project.Descendants(kind)
        .Select(element => Path.GetFileName(element.Attribute("Include")!.Value.Replace('\\', '/')).Replace(".csproj", "", StringComparison.Ordinal));

    /// <summary>The source files, by path from the package's folder, without comments.</summary>
    public IEnumerable<(string Path, string Code)> Sources()
    {
        string folder = Repository.PathOf($"src/{Name}");
        return Directory.EnumerateFiles(folder, "*.cs", SearchOption.AllDirectories)
            .Select(file => (Path: Path.GetRelativePath(folder, file), File: file))
            .Where(file => !file.Path.StartsWith("obj/", StringComparison.Ordinal) && !file.Path.StartsWith("bin/", StringComparison.Ordinal))
            .OrderBy(file => file.Path, StringComparer.Ordinal)
            .Select(file => (file.Path, Comment().Replace(File.ReadAllText(file.File), "")));
    }

    [GeneratedRegex(@"^\s*//.*$|(?<=[;{}\s])//\s.*$", RegexOptions.Multiline | RegexOptions.ExplicitCapture, matchTimeoutMilliseconds: 10_000)]
    private static partial Regex Comment();
}
