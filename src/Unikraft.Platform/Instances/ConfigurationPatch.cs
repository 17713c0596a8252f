using System.Collections.ObjectModel;

namespace Unikraft.Platform.Instances;

/// <summary>Changes of what an instance boots with, and of its policies.</summary>
internal static class ConfigurationPatch
{
    /// <summary>The configuration after some operations; those that concern something else are passed over.</summary>
    /// <exception cref="InvalidRequestException">One of them is not allowed.</exception>
    public static InstanceConfiguration Apply(
        this InstanceConfiguration configuration,
        IEnumerable<PatchOperation> operations,
        HypervisorInfo hypervisor)
    {
        InstanceConfiguration patched = configuration.After(operations);
        CreateInstanceRules.RequireBootable(patched.MemoryMb, patched.Vcpus, patched.Args, patched.Env, hypervisor);
        return patched;
    }

    /// <summary>The same of operations that were found to be allowed.</summary>
    public static InstanceConfiguration After(this InstanceConfiguration configuration, IEnumerable<PatchOperation> operations) =>
        operations.Aggregate(configuration, Apply);

    /// <summary>The policies after some operations; those that concern something else are passed over.</summary>
    /// <exception cref="InvalidRequestException">One of them is not allowed.</exception>
    public static InstancePolicies Apply(this InstancePolicies policies, IReadOnlyList<PatchOperation> operations)
    {
        foreach (PatchOperation.SetScaleToZero set in operations.OfType<PatchOperation.SetScaleToZero>())
        {
            Durations.RequireCooldown(set.ScaleToZero?.CooldownTime);
            if (set.ScaleToZero is not null && policies.Features.HasFlag(InstanceFeatures.DeleteOnStop))
            {
                throw new InvalidRequestException("Cannot specify 'scale_to_zero' with the feature 'delete-on-stop'");
            }

            policies = policies with { ScaleToZero = set.ScaleToZero };
        }

        foreach (PatchOperation.SetServices set in operations.OfType<PatchOperation.SetServices>())
        {
            policies = policies with { Services = ServiceRules.Resolve(Given(set.Services, "services")) };
        }

        return policies;
    }

    private static InstanceConfiguration Apply(InstanceConfiguration configuration, PatchOperation operation) => operation switch
    {
        PatchOperation.SetImage set => configuration with { Image = Given(set.Image, "image") },
        PatchOperation.SetArgs set => configuration with { Args = [.. Given(set.Args, "args")] },
        PatchOperation.AddArgs add => configuration with { Args = [.. configuration.Args, .. Given(add.Args, "args")] },
        PatchOperation.DelArgs del => configuration with
        {
            Args = [.. configuration.Args.Where(arg => !Given(del.Args, "args").Contains(arg, StringComparer.Ordinal))],
        },
        PatchOperation.SetEnv set => configuration with { Env = Merge([], Given(set.Env, "env")) },
        PatchOperation.AddEnv add => configuration with { Env = Merge(configuration.Env, Given(add.Env, "env")) },
        PatchOperation.DelEnv del => configuration with
        {
            Env = Merge(configuration.Env.Where(entry => !Given(del.Names, "env").Contains(entry.Key, StringComparer.Ordinal)), []),
        },
        PatchOperation.SetMemoryMb set => configuration with { MemoryMb = set.MemoryMb },
        PatchOperation.SetVcpus set => configuration with { Vcpus = set.Vcpus },
        _ => configuration,
    };

    private static T Given<T>(T? value, string property)
        where T : class => value ?? throw new InvalidRequestException($"A patch of '{property}' has no value");

    private static ReadOnlyDictionary<string, string> Merge(
        IEnumerable<KeyValuePair<string, string>> env,
        IEnumerable<KeyValuePair<string, string>> added)
    {
        Dictionary<string, string> merged = new(env, StringComparer.Ordinal);
        foreach ((string name, string value) in added)
        {
            merged[name] = value;
        }

        return merged.AsReadOnly();
    }
}
