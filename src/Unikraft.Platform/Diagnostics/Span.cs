using System.Diagnostics;

namespace Unikraft.Platform.Diagnostics;

/// <summary>An operation that is traced, by the clock of the platform. Ended once; what is said of it after that is not heard.</summary>
internal sealed class Span(Activity activity, TimeProvider timeProvider) : IDisposable
{
    private bool _hasEnded;

    /// <summary>What others refer to it by.</summary>
    public ActivityContext Context => activity.Context;

    /// <summary>The operation fails.</summary>
    public void Fail(Exception error)
    {
        if (!_hasEnded)
        {
            activity.SetStatus(ActivityStatusCode.Error, error.Message);
            activity.SetTag(TelemetryNames.ErrorTag, error.GetType().FullName);
        }
    }

    public void Dispose()
    {
        if (!_hasEnded)
        {
            _hasEnded = true;
            activity.SetEndTime(timeProvider.GetUtcNow().UtcDateTime);
            activity.Dispose();
        }
    }
}
