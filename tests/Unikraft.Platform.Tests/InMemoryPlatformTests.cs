using Unikraft.Platform.Contracts;
using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Tests;

public sealed class InMemoryPlatformTests : PlatformContract
{
    protected override void Configure(UnikraftPlatformBuilder builder)
    {
        ArgumentNullException.ThrowIfNull(builder);
        builder.UseTimeProvider(new ManualTimeProvider()).UseInMemory();
    }

    protected override GuestImage Image(string name) => GuestImage.FromFile($"/images/{name}.elf");
}
