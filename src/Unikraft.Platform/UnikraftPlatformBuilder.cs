using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Abstractions;
using Microsoft.Extensions.Options;
using Unikraft.Platform.Hypervisors;

namespace Unikraft.Platform;

/// <summary>Puts a platform together without dependency injection.</summary>
/// <example>
/// <code>
/// await using IUnikraftPlatform platform = new UnikraftPlatformBuilder().UseInMemory().Build();
/// </code>
/// </example>
public sealed class UnikraftPlatformBuilder : IPlatformBuilder
{
    internal const string NoHypervisor =
        "No hypervisor was chosen. Call the extension method of a backend on the platform builder, for example UseInMemory().";

    private readonly PlatformOptions _options = new();
    private TimeProvider _timeProvider = TimeProvider.System;
    private ILoggerFactory _loggerFactory = NullLoggerFactory.Instance;
    private Func<HypervisorContext, IHypervisor>? _hypervisorFactory;

    /// <summary>Changes the options. Several calls add up.</summary>
    /// <param name="configure">Changes the options.</param>
    /// <returns>The builder.</returns>
    public UnikraftPlatformBuilder Configure(Action<PlatformOptions> configure)
    {
        ArgumentNullException.ThrowIfNull(configure);
        configure(_options);
        return this;
    }

    /// <summary>Chooses the clock. Default: <see cref="TimeProvider.System"/>.</summary>
    /// <param name="timeProvider">The clock, for example a virtual one.</param>
    /// <returns>The builder.</returns>
    public UnikraftPlatformBuilder UseTimeProvider(TimeProvider timeProvider)
    {
        ArgumentNullException.ThrowIfNull(timeProvider);
        _timeProvider = timeProvider;
        return this;
    }

    /// <summary>Chooses where to log. Default: nowhere.</summary>
    /// <param name="loggerFactory">Where to log. Not disposed of with the platform.</param>
    /// <returns>The builder.</returns>
    public UnikraftPlatformBuilder UseLoggerFactory(ILoggerFactory loggerFactory)
    {
        ArgumentNullException.ThrowIfNull(loggerFactory);
        _loggerFactory = loggerFactory;
        return this;
    }

    /// <inheritdoc cref="IPlatformBuilder.UseHypervisor"/>
    public UnikraftPlatformBuilder UseHypervisor(Func<HypervisorContext, IHypervisor> factory)
    {
        ArgumentNullException.ThrowIfNull(factory);
        _hypervisorFactory = factory;
        return this;
    }

    IPlatformBuilder IPlatformBuilder.UseHypervisor(Func<HypervisorContext, IHypervisor> factory) => UseHypervisor(factory);

    /// <summary>Builds the platform. Each call builds another one.</summary>
    /// <exception cref="InvalidOperationException">No backend was chosen.</exception>
    /// <exception cref="OptionsValidationException">An option is out of range.</exception>
    /// <exception cref="HypervisorUnavailableException">The backend cannot be used on this host.</exception>
    public IUnikraftPlatform Build()
    {
        Func<HypervisorContext, IHypervisor> factory = _hypervisorFactory ?? throw new InvalidOperationException(NoHypervisor);
        ValidateOptionsResult result = new PlatformOptionsValidator().Validate(Options.DefaultName, _options);
        return result.Failed
            ? throw new OptionsValidationException(Options.DefaultName, typeof(PlatformOptions), result.Failures)
            : new UnikraftPlatform(_options, _timeProvider, _loggerFactory, factory);
    }
}
