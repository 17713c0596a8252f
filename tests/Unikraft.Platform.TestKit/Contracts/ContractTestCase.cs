using System.ComponentModel;
using Xunit.Abstractions;
using Xunit.Sdk;

namespace Unikraft.Platform.TestKit;

/// <summary>A contract fact, or one row of a contract theory.</summary>
public sealed class ContractTestCase : XunitTestCase
{
    /// <summary>For xunit, which restores test cases it has sent between processes.</summary>
    [EditorBrowsable(EditorBrowsableState.Never)]
    [Obsolete("Called by the deserializer only.")]
    public ContractTestCase()
    {
    }

    internal ContractTestCase(
        IMessageSink diagnosticMessageSink,
        TestMethodDisplay methodDisplay,
        TestMethodDisplayOptions methodDisplayOptions,
        ITestMethod testMethod,
        object[]? testMethodArguments = null)
        : base(diagnosticMessageSink, methodDisplay, methodDisplayOptions, testMethod, testMethodArguments)
    {
    }

    /// <inheritdoc/>
    protected override string? GetSkipReason(IAttributeInfo factAttribute) =>
        base.GetSkipReason(factAttribute) ?? Requirements.UnmetReason(TestMethod);
}
