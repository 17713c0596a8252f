using Microsoft.Extensions.Options;

namespace Unikraft.Platform.Kvm;

/// <summary>Refuses options that the backend could not work with.</summary>
internal sealed class KvmOptionsValidator : IValidateOptions<KvmOptions>
{
    private const int MaxOffset = 29;

    public ValidateOptionsResult Validate(string? name, KvmOptions options) => options.KickSignalOffset is >= 1 and <= MaxOffset
        ? ValidateOptionsResult.Success
        : ValidateOptionsResult.Fail(
            $"{nameof(KvmOptions.KickSignalOffset)} is {options.KickSignalOffset}; it must be 1 to {MaxOffset}. Signal SIGRTMIN+0 belongs to the .NET runtime.");
}
