namespace Unikraft.Platform.Instances;

/// <summary>A set of states.</summary>
/// <param name="Bits">One for each state.</param>
internal readonly record struct InstanceStates(uint Bits)
{
    public static InstanceStates None => default;

    public InstanceStates With(InstanceState state) => new(Bits | (1u << (int)state));

    public bool Has(InstanceState state) => (Bits & (1u << (int)state)) != 0;
}
