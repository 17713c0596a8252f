using System.Globalization;
using System.Text.RegularExpressions;
using Xunit.Abstractions;

namespace Unikraft.Platform.TestRunner;

/// <summary>Prints what becomes of the tests, while they run, and counts it.</summary>
/// <param name="output">Where it is printed.</param>
/// <param name="repeated">A test that fails with a message that matches this does not count: it is to be run once more. Null when all count.</param>
internal sealed class Execution(TextWriter output, Regex? repeated) : LongLivedMarshalByRefObject, IMessageSink
{
    private readonly TaskCompletionSource _finished = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly HashSet<ITestCase> _toRepeat = [];

    internal int Passed { get; private set; }

    internal int Failed { get; private set; }

    internal int Skipped { get; private set; }

    /// <summary>The tests that are to be run once more.</summary>
    internal IReadOnlyCollection<ITestCase> ToRepeat => _toRepeat;

    /// <summary>Completes when all tests have run.</summary>
    internal Task Finished => _finished.Task;

    public bool OnMessage(IMessageSinkMessage message)
    {
        switch (message)
        {
            // The name comes first and without an end of line: a test that hangs, or takes the process with it, is the last one named.
            case ITestStarting starting:
                output.Write($"  {starting.Test.DisplayName} ");
                output.Flush();
                break;
            case ITestPassed passed:
                Passed++;
                End($"passed ({passed.ExecutionTime.ToString("0.0", CultureInfo.InvariantCulture)} s)");
                break;
            case ITestSkipped skipped:
                Skipped++;
                End($"SKIPPED: {skipped.Reason}");
                break;
            case ITestFailed failed when repeated is not null && failed.Messages.Any(repeated.IsMatch):
                _ = _toRepeat.Add(failed.TestCase);
                End("TO BE REPEATED");
                Print(failed);
                break;
            case ITestFailed failed:
                Fail(failed);
                break;
            // What goes wrong outside of a test: fixtures and clean-up.
            case IErrorMessage error:
                Fail(error);
                break;
            case ITestAssemblyCleanupFailure failure:
                Fail(failure);
                break;
            case ITestCollectionCleanupFailure failure:
                Fail(failure);
                break;
            case ITestClassCleanupFailure failure:
                Fail(failure);
                break;
            case ITestMethodCleanupFailure failure:
                Fail(failure);
                break;
            case ITestCaseCleanupFailure failure:
                Fail(failure);
                break;
            case ITestCleanupFailure failure:
                Fail(failure);
                break;
            case ITestAssemblyFinished:
                _finished.TrySetResult();
                break;
        }

        return true;
    }

    private void Fail(IFailureInformation failure)
    {
        Failed++;
        End("FAILED");
        Print(failure);
    }

    private void Print(IFailureInformation failure)
    {
        for (int i = 0; i < failure.ExceptionTypes.Length; i++)
        {
            End($"    {failure.ExceptionTypes[i]}: {failure.Messages[i]}\n{failure.StackTraces[i]}");
        }
    }

    private void End(string text)
    {
        output.WriteLine(text);
        output.Flush();
    }
}
