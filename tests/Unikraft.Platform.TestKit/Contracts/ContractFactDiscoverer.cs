using Xunit.Abstractions;
using Xunit.Sdk;

namespace Unikraft.Platform.TestKit;

/// <summary>Makes the test cases of <see cref="ContractFactAttribute"/>. Instantiated by xunit.</summary>
/// <param name="diagnosticMessageSink">Where xunit reports trouble with the discovery.</param>
public sealed class ContractFactDiscoverer(IMessageSink diagnosticMessageSink) : FactDiscoverer(diagnosticMessageSink)
{
    /// <inheritdoc/>
    protected override IXunitTestCase CreateTestCase(
        ITestFrameworkDiscoveryOptions discoveryOptions,
        ITestMethod testMethod,
        IAttributeInfo factAttribute) =>
        new ContractTestCase(
            DiagnosticMessageSink,
            discoveryOptions.MethodDisplayOrDefault(),
            discoveryOptions.MethodDisplayOptionsOrDefault(),
            testMethod);
}
