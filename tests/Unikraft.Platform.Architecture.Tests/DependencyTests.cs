namespace Unikraft.Platform.Architecture.Tests;

public sealed class DependencyTests
{
    [Fact]
    public void Every_package_is_there() =>
        Assert.Equal(
            ["Unikraft.Platform", "Unikraft.Platform.Abstractions", "Unikraft.Platform.Kvm"],
            Package.All.Select(package => package.Name));

    [Fact]
    public void Project_files_point_the_right_way() => Assert.Empty(Package.All.SelectMany(DependencyRules.ProjectViolations));

    [Fact]
    public void Assemblies_point_the_right_way() =>
        Assert.Empty(Package.All.SelectMany(package => DependencyRules.AssemblyViolations(
            package.Name,
            package.Assembly.GetReferencedAssemblies().Select(reference => reference.Name!))));

    [Theory]
    [InlineData("Unikraft.Platform", """<ProjectReference Include="../Unikraft.Platform.Kvm/Unikraft.Platform.Kvm.csproj" />""")]
    [InlineData("Unikraft.Platform.Kvm", """<ProjectReference Include="..\Unikraft.Platform\Unikraft.Platform.csproj" />""")]
    [InlineData("Unikraft.Platform.Abstractions", """<ProjectReference Include="../Unikraft.Platform/Unikraft.Platform.csproj" />""")]
    [InlineData("Unikraft.Platform.Abstractions", """<PackageReference Include="Microsoft.Extensions.Hosting" />""")]
    [InlineData("Unikraft.Platform", """<InternalsVisibleTo Include="Unikraft.Platform.Kvm" />""")]
    [InlineData("Unikraft.Platform.Cluster", "")]
    public void An_arrow_that_turns_round_is_found(string package, string item) =>
        Assert.Single(DependencyRules.ProjectViolations(Package.Parse(package, $"<Project><ItemGroup>{item}</ItemGroup></Project>")));

    [Fact]
    public void An_assembly_that_turns_round_is_found() =>
        Assert.Equal(
            ["Unikraft.Platform must not refer to the assembly Unikraft.Platform.Kvm."],
            DependencyRules.AssemblyViolations("Unikraft.Platform", ["System.Runtime", "Unikraft.Platform.Abstractions", "Unikraft.Platform.Kvm"]));
}
