namespace Unikraft.Platform.Kvm.Vcpus;

/// <summary>
/// One moment at which all vCPUs stand still and their state is taken. The work is done on the thread of the vCPU that stops last, so
/// that no other thread has to be woken while the guest waits.
/// </summary>
/// <param name="states">Where the state of each vCPU goes.</param>
/// <param name="work">What else is to be done in the moment. Must not block and should not allocate.</param>
internal sealed class Cut(VcpuState[] states, Action work)
{
    private readonly TaskCompletionSource _completion = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private Exception? _error;

    /// <summary>Completes when the vCPUs run again.</summary>
    internal Task Completion => _completion.Task;

    /// <summary>When the vCPUs were asked to stop, as a timestamp.</summary>
    internal long RequestedAt { get; set; }

    /// <summary>When they ran again, as a timestamp.</summary>
    internal long ReleasedAt { get; set; }

    /// <summary>How many vCPUs have stored their state.</summary>
    internal int Saved { get; set; }

    internal VcpuState StateOf(int vcpu) => states[vcpu];

    internal void Execute()
    {
        try
        {
            work();
        }
#pragma warning disable CA1031 // Reported through Completion: the vCPU thread must release the guest whatever happens.
        catch (Exception error)
#pragma warning restore CA1031
        {
            _error = error;
        }
    }

    internal void Complete()
    {
        if (_error is { } error)
        {
            _completion.SetException(error);
        }
        else
        {
            _completion.SetResult();
        }
    }

    internal void Fail(Exception error) => _completion.SetException(error);
}
