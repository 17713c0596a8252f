using System.Reflection;
using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Architecture.Tests;

/// <summary>One approved listing of the public surface per package.</summary>
public sealed class PublicApi
{
    [Fact]
    public void Abstractions() => Snapshot.Match(Render("Unikraft.Platform.Abstractions"));

    [Fact]
    public void Platform() => Snapshot.Match(Render("Unikraft.Platform"));

    [Fact]
    public void Kvm() => Snapshot.Match(Render("Unikraft.Platform.Kvm"));

    private static string Render(string package) => TestKit.PublicApi.Render(Assembly.Load(package));
}
