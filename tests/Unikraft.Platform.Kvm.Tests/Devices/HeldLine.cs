using Unikraft.Platform.Kvm.Devices;
using Unikraft.Platform.Kvm.Tests.Testing;

namespace Unikraft.Platform.Kvm.Tests.Devices;

/// <summary>An interrupt line on which whoever sets it is held, with all that he holds himself.</summary>
internal sealed class HeldLine : IInterruptLine, IDisposable
{
    private readonly TaskCompletionSource _entered = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly ManualResetEventSlim _released = new();

    public void Set(bool isHigh)
    {
        _entered.TrySetResult();
        _released.Wait();
    }

    /// <summary>Has somebody set the line, and does something before he gets away.</summary>
    internal async Task<T> WhileSetAsync<T>(Action set, Func<T> then)
    {
        Task setting = Task.Run(set);
        try
        {
            await _entered.Task.Guarded();
            return await Task.Run(then).Guarded();
        }
        finally
        {
            _released.Set();
            await setting.Guarded();
        }
    }

    public void Dispose() => _released.Dispose();
}
