using System.Collections.Concurrent;
using System.Globalization;

namespace Unikraft.Platform.CrashChild;

/// <summary>
/// Stops a directory at one of the calls by which it touches the disk: before it, or in the middle of a write. Nothing that comes later reaches the disk; the process is killed when all
/// of its directories have stopped, each at a call of its own.
/// </summary>
/// <param name="point">
/// What to stop at: the kind of a call (<c>Write</c>); that and where in the library it is made (<c>Sync@MetadataStore.Append</c>); or, behind a <c>!</c>, a call that fails, after which
/// the next one that takes something to the disk, or gives or takes a name, is the one to stop at, or the one that is named behind a <c>&gt;</c>. Behind a <c>!!</c> it fails because
/// the disk is full.
/// </param>
/// <param name="number">Which of these calls, counted from 1; 0 for none.</param>
/// <param name="say">Told what happens.</param>
/// <param name="stopped">Told when it has stopped.</param>
internal sealed class KillSwitch(string point, int number, Action<string> say, Action stopped)
{
    private const int InputOutput = 5;
    private const int NoSpace = 28;

    private readonly ConcurrentDictionary<string, int> _calls = new(StringComparer.Ordinal);
    private readonly string[] _steps = point.Split('>');
    private readonly Lock _lock = new();
    private int _failed;
    private int _isStopped;

    /// <summary>How many calls of each kind there were, and at each place.</summary>
    internal string Calls => string.Join(' ', _calls.Select(static entry => string.Create(CultureInfo.InvariantCulture, $"{entry.Key}={entry.Value}")).Order(StringComparer.Ordinal));

    /// <summary>Whether there has been a failure, after which nothing is as in a run without.</summary>
    internal bool HasFailed => Volatile.Read(ref _failed) != 0;

    /// <summary>Whether a place was passed, or there has been a failure, after which it may never be.</summary>
    /// <param name="site">A call at a place.</param>
    internal bool HasPassed(string site) => HasFailed || _calls.ContainsKey(site);

    /// <summary>One of the calls that prepare what others take to the disk.</summary>
    /// <returns>Whether it is to stop in the middle of the call, if it may.</returns>
    internal bool Step(string call, bool mayBegin = false)
    {
        WaitIfStopped();
        return Count(call) && Stop(call, mayBegin);
    }

    /// <summary>One of the calls that decide what is there after a crash.</summary>
    /// <returns>The number of the error with which it is to fail; <see langword="null"/> when it is not to.</returns>
    internal int? StepDecisive(string call)
    {
        WaitIfStopped();
        string site = CallSites.Current(call);
        lock (_lock)
        {
            bool isFirst = Count(call) | Count(site);
            bool isNext = _failed == 0 ? isFirst : _failed == _steps.Length || IsAt(site, _steps[_failed]);
            if (!isNext)
            {
                return null;
            }

            if (_failed < _steps.Length && _steps[_failed].StartsWith('!'))
            {
                bool isFull = _steps[_failed++].StartsWith("!!", StringComparison.Ordinal);
                say($"failed-at {site}");
                return isFull ? NoSpace : InputOutput;
            }
        }

        _ = Stop(HasFailed ? $"{site}-after-{point}" : site, mayBegin: false);
        return null;
    }

    /// <summary>Stops at the call that has begun.</summary>
    internal void StopNow()
    {
        stopped();
        Wait();
    }

    /// <summary>How much of a write is made when the kill comes in its middle: no part of a sector, for nothing makes it without the rest.</summary>
    internal static int Half(int length, int unit = 512) => length / 2 / unit * unit;

    private bool Count(string call)
    {
        int count = _calls.AddOrUpdate(call, 1, static (_, count) => count + 1);
        return count == number && IsAt(call, _steps[0]);
    }

    private static bool IsAt(string call, string step) => call.AsSpan().SequenceEqual(step.AsSpan().TrimStart('!'));

    private bool Stop(string site, bool mayBegin)
    {
        if (Interlocked.Exchange(ref _isStopped, 1) != 0)
        {
            Wait();
        }

        say($"stopped {point} {number.ToString(CultureInfo.InvariantCulture)} {site}");
        if (!mayBegin)
        {
            StopNow();
        }

        return true;
    }

    private void WaitIfStopped()
    {
        if (Volatile.Read(ref _isStopped) != 0)
        {
            Wait();
        }
    }

    // Until the process is killed.
    private static void Wait() => new ManualResetEventSlim().Wait();
}
