namespace Unikraft.Platform.InMemory;

/// <summary>How the last request of a guest ended.</summary>
/// <param name="Errno">0, or a Linux error number.</param>
/// <param name="IsForkChild">Whether it was a fork and ended in the child.</param>
/// <param name="ForkChild">The UUID of the child, if it was a fork.</param>
internal sealed record RequestOutcome(int Errno, bool IsForkChild = false, Guid ForkChild = default);
