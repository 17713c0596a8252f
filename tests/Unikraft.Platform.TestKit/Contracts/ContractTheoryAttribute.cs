using Xunit.Sdk;

namespace Unikraft.Platform.TestKit;

/// <summary>A theory whose rows are skipped, with the reason, when the concrete test class has an unmet <see cref="IRequirement"/>.</summary>
[AttributeUsage(AttributeTargets.Method)]
[XunitTestCaseDiscoverer("Unikraft.Platform.TestKit.ContractTheoryDiscoverer", "Unikraft.Platform.TestKit")]
public sealed class ContractTheoryAttribute : TheoryAttribute;
