using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.DependencyInjection.Extensions;
using Unikraft.Platform.Hypervisors;

namespace Unikraft.Platform.Hosting;

internal sealed class ServiceCollectionPlatformBuilder(IServiceCollection services) : IPlatformBuilder
{
    public IPlatformBuilder UseHypervisor(Func<HypervisorContext, IHypervisor> factory)
    {
        ArgumentNullException.ThrowIfNull(factory);
        services.Replace(ServiceDescriptor.Singleton(new HypervisorChoice(factory)));
        return this;
    }
}
