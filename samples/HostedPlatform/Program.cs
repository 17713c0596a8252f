using HostedPlatform;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
using Unikraft.Platform;
using Unikraft.Platform.Kvm;

// Runs a guest for as long as the host lives. Stop it with Ctrl+C, or say for how many seconds: dotnet run --project samples/HostedPlatform -- 3
HostApplicationBuilder host = Host.CreateApplicationBuilder(args);
host.Services.AddSingleton(new WorkerOptions(args is [{ } seconds, ..] ? TimeSpan.FromSeconds(int.Parse(seconds)) : Timeout.InfiniteTimeSpan));

// Hosted services stop in the reverse order of their registration. The platform's is registered last, so it stops the instances first, and
// the worker then reports how its own has ended.
host.Services.AddHostedService<CounterWorker>();
IPlatformBuilder platform = host.Services.AddUnikraftPlatform(options => options.StopGracePeriod = TimeSpan.FromSeconds(2));
KvmSupport kvm = KvmProbe.Check();
if (kvm.IsUsable)
{
    platform.UseKvm();
}
else
{
    await Console.Error.WriteLineAsync($"KVM cannot be used: {kvm.Message} Running on the in-memory backend.");
    platform.UseInMemory();
}

await host.Build().RunAsync();
