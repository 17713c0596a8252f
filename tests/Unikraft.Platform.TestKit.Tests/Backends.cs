namespace Unikraft.Platform.TestKit.Tests;

[AttributeUsage(AttributeTargets.Class)]
internal sealed class RequiresCheeseMoonAttribute : Attribute, IRequirement
{
    public string? UnmetReason => "the moon is not made of cheese";
}

[AttributeUsage(AttributeTargets.Class)]
internal sealed class RequiresMoonAttribute : Attribute, IRequirement
{
    public string? UnmetReason => null;
}

[RequiresCheeseMoon]
internal sealed class OnMissingBackend : SampleContract
{
    protected override bool Works => throw new InvalidOperationException("A skipped test does not run.");
}

[RequiresMoon]
internal sealed class OnPresentBackend : SampleContract
{
    protected override bool Works => true;
}

internal sealed class OnBrokenBackend : SampleContract
{
    protected override bool Works => false;
}
