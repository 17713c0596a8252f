using Xunit.Abstractions;

namespace Unikraft.Platform.TestKit;

internal static class Requirements
{
    /// <summary>
    /// The reasons of all unmet requirements of the class that is run. That class may be derived from the one that declares the test, which
    /// is how one suite runs against every backend.
    /// </summary>
    public static string? UnmetReason(ITestMethod testMethod)
    {
        Type testClass = ((IReflectionTypeInfo)testMethod.TestClass.Class).Type;
        string[] reasons = [.. testClass.GetCustomAttributes(inherit: true)
            .OfType<IRequirement>()
            .Select(requirement => requirement.UnmetReason)
            .OfType<string>()
            .Order(StringComparer.Ordinal)];
        return reasons.Length == 0 ? null : string.Join("; ", reasons);
    }
}
