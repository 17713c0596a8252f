using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Contracts;

/// <summary>Bounds what a test waits for. Only a test that fails ever gets there.</summary>
public static class Watchdog
{
    private static readonly TimeSpan Limit = Patience.For(TimeSpan.FromMinutes(1));

    /// <summary>Waits for a task in real time.</summary>
    /// <typeparam name="T">The result.</typeparam>
    /// <param name="task">The task.</param>
    public static Task<T> Guarded<T>(this Task<T> task)
    {
        ArgumentNullException.ThrowIfNull(task);
        return task.WaitAsync(Limit);
    }

    /// <summary>Waits for a task in real time.</summary>
    /// <param name="task">The task.</param>
    public static Task Guarded(this Task task)
    {
        ArgumentNullException.ThrowIfNull(task);
        return task.WaitAsync(Limit);
    }

    /// <summary>Waits for a task in real time.</summary>
    /// <typeparam name="T">The result.</typeparam>
    /// <param name="task">The task.</param>
    public static Task<T> Guarded<T>(this ValueTask<T> task) => task.AsTask().Guarded();

    /// <summary>Waits for a task in real time.</summary>
    /// <param name="task">The task.</param>
    public static Task Guarded(this ValueTask task) => task.AsTask().Guarded();
}
