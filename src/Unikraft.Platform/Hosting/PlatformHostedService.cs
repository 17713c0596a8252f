using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;

namespace Unikraft.Platform.Hosting;

/// <summary>Ties a platform to the life of its host.</summary>
internal sealed class PlatformHostedService(IServiceProvider services) : IHostedService
{
    private IUnikraftPlatform? _platform;

    public Task StartAsync(CancellationToken cancellationToken)
    {
        // Resolved here and not injected, so that errors of options and of the backend come from the start of the host.
        _platform = services.GetRequiredService<IUnikraftPlatform>();
        return Task.CompletedTask;
    }

    public Task StopAsync(CancellationToken cancellationToken) => _platform?.StopAllAsync(cancellationToken) ?? Task.CompletedTask;
}
