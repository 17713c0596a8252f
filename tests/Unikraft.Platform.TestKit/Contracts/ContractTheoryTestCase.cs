using System.ComponentModel;
using Xunit.Abstractions;
using Xunit.Sdk;

namespace Unikraft.Platform.TestKit;

/// <summary>A contract theory whose rows xunit cannot tell before it runs them.</summary>
public sealed class ContractTheoryTestCase : XunitTheoryTestCase
{
    /// <summary>For xunit, which restores test cases it has sent between processes.</summary>
    [EditorBrowsable(EditorBrowsableState.Never)]
    [Obsolete("Called by the deserializer only.")]
    public ContractTheoryTestCase()
    {
    }

    internal ContractTheoryTestCase(
        IMessageSink diagnosticMessageSink,
        TestMethodDisplay methodDisplay,
        TestMethodDisplayOptions methodDisplayOptions,
        ITestMethod testMethod)
        : base(diagnosticMessageSink, methodDisplay, methodDisplayOptions, testMethod)
    {
    }

    /// <inheritdoc/>
    protected override string? GetSkipReason(IAttributeInfo factAttribute) =>
        base.GetSkipReason(factAttribute) ?? Requirements.UnmetReason(TestMethod);
}
