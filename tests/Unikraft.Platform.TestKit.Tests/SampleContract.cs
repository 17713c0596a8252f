namespace Unikraft.Platform.TestKit.Tests;

/// <summary>A contract suite for <see cref="ContractTests"/> to run. Its subclasses are private types, so that the runner does not find them.</summary>
public abstract class SampleContract
{
    protected abstract bool Works { get; }

    public static IEnumerable<object[]> OpaqueRows => [[new Opaque()], [new Opaque()]];

    [ContractFact]
    public void Fact() => Assert.True(Works);

    [ContractTheory]
    [InlineData(1)]
    [InlineData(2)]
    public void Theory(int row) => Assert.True(Works && row > 0);

    [ContractTheory]
    [MemberData(nameof(OpaqueRows))]
    public void Theory_whose_rows_are_not_known_before(Opaque row) => Assert.True(Works && row is not null);

    public sealed class Opaque;
}
