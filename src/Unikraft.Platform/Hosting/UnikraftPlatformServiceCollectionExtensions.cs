using Microsoft.Extensions.DependencyInjection.Extensions;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Abstractions;
using Microsoft.Extensions.Options;
using Unikraft.Platform;
using Unikraft.Platform.Hosting;

namespace Microsoft.Extensions.DependencyInjection;

/// <summary>Adds a microVM platform to a host.</summary>
public static class UnikraftPlatformServiceCollectionExtensions
{
    /// <summary>
    /// Adds a platform: <see cref="IUnikraftPlatform"/>, <see cref="IInstanceManager"/>, <see cref="ICheckpointStore"/>,
    /// <see cref="ITemplateStore"/> and <see cref="IVolumeStore"/> as singletons, and a hosted service that builds the platform when the host starts and stops its instances when
    /// the host shuts down.
    /// </summary>
    /// <remarks>Choose a backend on the returned builder. Uses the registered <see cref="TimeProvider"/>, or else the system's.</remarks>
    /// <param name="services">The services.</param>
    /// <param name="configure">Changes the options; they are validated when the host starts.</param>
    /// <returns>The builder of the platform.</returns>
    public static IPlatformBuilder AddUnikraftPlatform(this IServiceCollection services, Action<PlatformOptions>? configure = null)
    {
        ArgumentNullException.ThrowIfNull(services);
        OptionsBuilder<PlatformOptions> options = services.AddOptions<PlatformOptions>().ValidateOnStart();
        if (configure is not null)
        {
            options.Configure(configure);
        }

        services.TryAddEnumerable(ServiceDescriptor.Singleton<IValidateOptions<PlatformOptions>, PlatformOptionsValidator>());
        services.TryAddSingleton(TimeProvider.System);
        services.TryAddSingleton<IUnikraftPlatform>(static provider => new UnikraftPlatform(
            provider.GetRequiredService<IOptions<PlatformOptions>>().Value,
            provider.GetRequiredService<TimeProvider>(),
            provider.GetService<ILoggerFactory>() ?? NullLoggerFactory.Instance,
            provider.GetService<HypervisorChoice>()?.Factory ?? throw new InvalidOperationException(UnikraftPlatformBuilder.NoHypervisor)));
        services.TryAddSingleton(static provider => provider.GetRequiredService<IUnikraftPlatform>().Instances);
        services.TryAddSingleton(static provider => provider.GetRequiredService<IUnikraftPlatform>().Checkpoints);
        services.TryAddSingleton(static provider => provider.GetRequiredService<IUnikraftPlatform>().Templates);
        services.TryAddSingleton(static provider => provider.GetRequiredService<IUnikraftPlatform>().Volumes);
        services.TryAddEnumerable(ServiceDescriptor.Singleton<IHostedService, PlatformHostedService>());
        return new ServiceCollectionPlatformBuilder(services);
    }
}
