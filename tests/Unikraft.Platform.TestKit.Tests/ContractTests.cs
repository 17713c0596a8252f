using Xunit.Abstractions;
using Xunit.Sdk;

namespace Unikraft.Platform.TestKit.Tests;

public sealed class ContractTests
{
    [Fact]
    public void An_unmet_requirement_skips_facts_and_every_theory_row_with_its_reason()
    {
        RunResult result = Run(typeof(OnMissingBackend));

        Assert.Equal(0, result.Passed);
        Assert.Equal(0, result.Failed);
        Assert.Equal(5, result.SkipReasons.Count);
        Assert.All(result.SkipReasons, reason => Assert.Equal("the moon is not made of cheese", reason));
    }

    [Fact]
    public void A_met_requirement_runs_facts_and_theory_rows()
    {
        RunResult result = Run(typeof(OnPresentBackend));

        Assert.Equal(5, result.Passed);
        Assert.Equal(0, result.Failed);
        Assert.Empty(result.SkipReasons);
    }

    [Fact]
    public void A_failing_contract_fails()
    {
        RunResult result = Run(typeof(OnBrokenBackend));

        Assert.Equal(0, result.Passed);
        Assert.Equal(5, result.Failed);
    }

    [Fact]
    public void Test_cases_survive_serialization()
    {
        using Xunit2Discovery discovery = new(typeof(OnMissingBackend));

        Assert.All(discovery.TestCases, testCase =>
        {
            IXunitTestCase copy = SerializationHelper.Deserialize<IXunitTestCase>(SerializationHelper.Serialize(testCase));
            Assert.Equal("the moon is not made of cheese", copy.SkipReason);
            Assert.Equal(testCase.DisplayName, copy.DisplayName);
        });
    }

    private static RunResult Run(Type testClass)
    {
        using Xunit2Discovery discovery = new(testClass);
        return discovery.Run();
    }

    private sealed record RunResult(int Passed, int Failed, IReadOnlyList<string> SkipReasons);

    private sealed class Xunit2Discovery : IDisposable
    {
        private readonly XunitTestFramework _framework;

        public Xunit2Discovery(Type testClass)
        {
            _framework = new XunitTestFramework(new NullMessageSink());
            using ITestFrameworkDiscoverer discoverer = _framework.GetDiscoverer(Reflector.Wrap(testClass.Assembly));
            Collector<ITestCaseDiscoveryMessage, IDiscoveryCompleteMessage> found = new();
            discoverer.Find(testClass.FullName!, includeSourceInformation: false, found, new NoOptions());
            found.WaitForEnd();
            TestCases = [.. found.Messages.Select(message => message.TestCase)];
        }

        public IReadOnlyList<ITestCase> TestCases { get; }

        public RunResult Run()
        {
            using ITestFrameworkExecutor executor = _framework.GetExecutor(typeof(ContractTests).Assembly.GetName());
            Collector<ITestResultMessage, ITestAssemblyFinished> results = new();
            executor.RunTests(TestCases, results, new NoOptions());
            results.WaitForEnd();
            return new RunResult(
                results.Messages.OfType<ITestPassed>().Count(),
                results.Messages.OfType<ITestFailed>().Count(),
                [.. results.Messages.OfType<ITestSkipped>().Select(skipped => skipped.Reason)]);
        }

        public void Dispose() => _framework.Dispose();
    }

    /// <summary>Leaves every option at its default.</summary>
    private sealed class NoOptions : LongLivedMarshalByRefObject, ITestFrameworkDiscoveryOptions, ITestFrameworkExecutionOptions
    {
        public TValue GetValue<TValue>(string name) => default!;

        public void SetValue<TValue>(string name, TValue value) => throw new NotSupportedException(name);
    }

    private sealed class Collector<TMessage, TEnd> : LongLivedMarshalByRefObject, IMessageSink
        where TMessage : IMessageSinkMessage
        where TEnd : IMessageSinkMessage
    {
        private readonly ManualResetEventSlim _ended = new();

        public List<TMessage> Messages { get; } = [];

        public bool OnMessage(IMessageSinkMessage message)
        {
            if (message is TMessage wanted)
            {
                lock (Messages)
                {
                    Messages.Add(wanted);
                }
            }

            if (message is TEnd)
            {
                _ended.Set();
            }

            return true;
        }

        public void WaitForEnd() => Assert.True(_ended.Wait(TimeSpan.FromMinutes(1)));
    }
}
