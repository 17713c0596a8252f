namespace Unikraft.Platform.Kvm.Tests.Testing;

/// <summary>Ends a wait that would never end. Not a measure of anything: what is waited for happens long before.</summary>
internal static class Watchdog
{
    private static readonly TimeSpan Limit = TestKit.Patience.For(TimeSpan.FromSeconds(30));

    internal static Task Guarded(this Task task) => task.WaitAsync(Limit, TimeProvider.System);

    internal static Task<T> Guarded<T>(this Task<T> task) => task.WaitAsync(Limit, TimeProvider.System);

    internal static Task Guarded(this ValueTask task) => task.AsTask().Guarded();

    internal static Task<T> Guarded<T>(this ValueTask<T> task) => task.AsTask().Guarded();
}
