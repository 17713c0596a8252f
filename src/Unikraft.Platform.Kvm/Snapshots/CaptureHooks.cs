namespace Unikraft.Platform.Kvm.Snapshots;

/// <summary>Lets measurements and proofs look into a snapshot while it is taken.</summary>
/// <param name="AfterRounds">Called after the rounds that leave the guest alone, before it is decided whether to hold it.</param>
/// <param name="BeforeCut">Called between the last round and the cut.</param>
/// <param name="InCut">Called in the cut, with all vCPUs standing still.</param>
internal sealed record CaptureHooks(Func<ValueTask>? AfterRounds = null, Func<ValueTask>? BeforeCut = null, Action? InCut = null);
