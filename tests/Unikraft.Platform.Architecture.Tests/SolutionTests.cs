using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Architecture.Tests;

public sealed class SolutionTests
{
    [Fact]
    public void Every_project_is_in_the_solution()
    {
        string solution = File.ReadAllText(Repository.PathOf("Unikraft.Platform.sln")).Replace('\\', '/');
        IEnumerable<string> projects = new[] { "src", "tests", "samples", "benchmarks" }
            .SelectMany(folder => Directory.EnumerateFiles(Repository.PathOf(folder), "*.csproj", SearchOption.AllDirectories))
            .Select(project => Path.GetRelativePath(Repository.Root, project));

        Assert.All(projects, project => Assert.Contains($"\"{project}\"", solution, StringComparison.Ordinal));
    }

    [Fact]
    public void Every_package_is_justified()
    {
        string justified = File.ReadAllText(Repository.PathOf("docs/dependencies.md"));
        IEnumerable<string> packages = System.Xml.Linq.XDocument.Load(Repository.PathOf("Directory.Packages.props"))
            .Descendants("PackageVersion")
            .Select(package => package.Attribute("Include")!.Value);

        Assert.All(packages, package => Assert.Contains($"| {package} |", justified, StringComparison.Ordinal));
    }
}
