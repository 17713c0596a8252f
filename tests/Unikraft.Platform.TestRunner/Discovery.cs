using Xunit.Abstractions;

namespace Unikraft.Platform.TestRunner;

/// <summary>Collects the tests of an assembly.</summary>
internal sealed class Discovery : LongLivedMarshalByRefObject, IMessageSink
{
    private readonly List<ITestCase> _tests = [];
    private readonly TaskCompletionSource _finished = new(TaskCreationOptions.RunContinuationsAsynchronously);

    /// <summary>All tests, when all are found.</summary>
    internal async Task<IReadOnlyList<ITestCase>> GetTestsAsync()
    {
        await _finished.Task;
        return _tests;
    }

    public bool OnMessage(IMessageSinkMessage message)
    {
        switch (message)
        {
            case ITestCaseDiscoveryMessage found:
                _tests.Add(found.TestCase);
                break;
            case IDiscoveryCompleteMessage:
                _finished.TrySetResult();
                break;
        }

        return true;
    }
}
