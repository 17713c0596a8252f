using Xunit.Sdk;

namespace Unikraft.Platform.TestKit;

/// <summary>A fact which is skipped, with the reason, when the concrete test class has an unmet <see cref="IRequirement"/>.</summary>
[AttributeUsage(AttributeTargets.Method)]
[XunitTestCaseDiscoverer("Unikraft.Platform.TestKit.ContractFactDiscoverer", "Unikraft.Platform.TestKit")]
public sealed class ContractFactAttribute : FactAttribute;
