using Microsoft.Extensions.Options;
using Unikraft.Platform.Kvm;
using Unikraft.Platform.Kvm.Machines;

namespace Unikraft.Platform;

/// <summary>Chooses KVM as the backend of a platform.</summary>
public static class KvmPlatformBuilderExtensions
{
    /// <summary>Runs machines on <c>/dev/kvm</c>.</summary>
    /// <typeparam name="TBuilder">The kind of builder.</typeparam>
    /// <param name="builder">The platform to be.</param>
    /// <param name="configure">Sets options.</param>
    /// <returns>The builder.</returns>
    /// <remarks>
    /// When the platform is built, an <see cref="OptionsValidationException"/> tells of wrong options and a
    /// <see cref="HypervisorUnavailableException"/> tells why KVM cannot be used; <see cref="KvmProbe.Check()"/> asks beforehand.
    /// </remarks>
    public static TBuilder UseKvm<TBuilder>(this TBuilder builder, Action<KvmOptions>? configure = null)
        where TBuilder : IPlatformBuilder
    {
        ArgumentNullException.ThrowIfNull(builder);
        builder.UseHypervisor(context =>
        {
            KvmOptions options = new();
            configure?.Invoke(options);
            ValidateOptionsResult result = new KvmOptionsValidator().Validate(name: null, options);
            return result.Succeeded
                ? new KvmHypervisor(options, context)
                : throw new OptionsValidationException(nameof(KvmOptions), typeof(KvmOptions), result.Failures);
        });
        return builder;
    }
}
