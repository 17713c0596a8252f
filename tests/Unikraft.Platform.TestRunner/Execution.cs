using System.Globalization;
using Xunit.Abstractions;

namespace Unikraft.Platform.TestRunner;

/// <summary>Prints what becomes of the tests, while they run, and counts it.</summary>
internal sealed class Execution(TextWriter output) : LongLivedMarshalByRefObject, IMessageSink
{
    private readonly TaskCompletionSource _finished = new(TaskCreationOptions.RunContinuationsAsynchronously);

    internal int Passed { get; private set; }

    internal int Failed { get; private set; }

    internal int Skipped { get; private set; }

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
