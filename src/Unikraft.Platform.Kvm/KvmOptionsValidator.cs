using Microsoft.Extensions.Options;

namespace Unikraft.Platform.Kvm;

/// <summary>Refuses options that the backend could not work with.</summary>
internal sealed class KvmOptionsValidator : IValidateOptions<KvmOptions>
{
    private const int MaxOffset = 29;

    private const int MaxReadyMachines = 1024;

    private static readonly TimeSpan MaxRefillDelay = TimeSpan.FromMinutes(1);

    public ValidateOptionsResult Validate(string? name, KvmOptions options)
    {
        List<string> failures = [];
        if (options.KickSignalOffset is < 1 or > MaxOffset)
        {
            failures.Add(
                $"{nameof(KvmOptions.KickSignalOffset)} is {options.KickSignalOffset}; it must be 1 to {MaxOffset}. Signal SIGRTMIN+0 belongs to the .NET runtime.");
        }

        if (options.ReadyMachines is < 0 or > MaxReadyMachines)
        {
            failures.Add($"{nameof(KvmOptions.ReadyMachines)} is {options.ReadyMachines}; it must be 0 to {MaxReadyMachines}.");
        }

        if (options.RefillDelay < TimeSpan.Zero || options.RefillDelay > MaxRefillDelay)
        {
            failures.Add(FormattableString.Invariant(
                $"{nameof(KvmOptions.RefillDelay)} is {options.RefillDelay}; it must be 0 to {MaxRefillDelay}."));
        }

        return failures.Count == 0 ? ValidateOptionsResult.Success : ValidateOptionsResult.Fail(failures);
    }
}
