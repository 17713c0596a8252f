using Unikraft.Platform.InMemory;

namespace Unikraft.Platform;

/// <summary>Chooses the in-memory backend.</summary>
public static class InMemoryPlatformBuilderExtensions
{
    /// <summary>
    /// Runs scripted guests in place of machines, for tests of what is built on a platform: no virtual hardware is needed, and time is the
    /// platform's <see cref="TimeProvider"/>.
    /// </summary>
    /// <param name="builder">The builder of the platform.</param>
    /// <param name="configure">Changes the options of the backend.</param>
    /// <typeparam name="TBuilder">The kind of builder.</typeparam>
    /// <returns>The builder.</returns>
    public static TBuilder UseInMemory<TBuilder>(this TBuilder builder, Action<InMemoryHypervisorOptions>? configure = null)
        where TBuilder : IPlatformBuilder
    {
        ArgumentNullException.ThrowIfNull(builder);
        builder.UseHypervisor(context =>
        {
            InMemoryHypervisorOptions options = new();
            configure?.Invoke(options);
            return new InMemoryHypervisor(options, context);
        });
        return builder;
    }
}
