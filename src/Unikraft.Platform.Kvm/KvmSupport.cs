namespace Unikraft.Platform.Kvm;

/// <summary>Whether KVM can be used on this host, and why not.</summary>
/// <param name="Problem">Why not; <see cref="KvmProblem.None"/> when it can.</param>
/// <param name="Message">One line for people: what was found, or what is wrong and what to do about it.</param>
public sealed record KvmSupport(KvmProblem Problem, string Message)
{
    /// <summary>Whether KVM can be used.</summary>
    public bool IsUsable => Problem == KvmProblem.None;
}
