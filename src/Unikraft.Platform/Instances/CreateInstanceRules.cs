using Unikraft.Platform.Volumes;

namespace Unikraft.Platform.Instances;

/// <summary>What a request to create an instance may say.</summary>
internal static class CreateInstanceRules
{
    private const int MaxReplicas = 253;

    /// <exception cref="InvalidRequestException">The request contradicts itself or is out of range.</exception>
    public static void Require(CreateInstanceRequest request, int replicas, HypervisorInfo hypervisor)
    {
        if (request.Template is not null)
        {
            const string When = "creating an instance from a template";
            RequireUnset(request.BranchFrom is not null, $"Cannot specify 'branch_from' when {When}");
            RequireUnset(request.Checkpoint is not null, $"Cannot specify 'checkpoint' when {When}");
            RequireUnset(request.Image is not null, $"Cannot specify 'image' when {When}");
            RequireInherited(request, When);
        }
        else if (request.BranchFrom is not null)
        {
            RequireUnset(request.Image is not null, "Cannot specify 'image' when 'branch_from' is set");
            RequireUnset(request.Checkpoint is not null, "Cannot specify 'checkpoint' when 'branch_from' is set");
            RequireInherited(request, "branching from an existing instance");
        }
        else if (request.Checkpoint is not null)
        {
            RequireUnset(request.Image is not null, "Cannot specify 'image' when 'checkpoint' is set");
            RequireInherited(request, "creating an instance from a checkpoint");
        }
        else if (request.Image is null)
        {
            throw new InvalidRequestException("Specify exactly one of 'image', 'branch_from', 'checkpoint' and 'template'");
        }

        RequireUnset(request.Snapshot is not null && request.BranchFrom is null, "Cannot specify 'snapshot' unless 'branch_from' is set");
        VolumeRules.Require(request.Volumes, request.Roms);
        _ = ServiceRules.Resolve(request.Services);
        Durations.RequirePauseBudget(request.Snapshot?.PauseBudget);
        RequireBootable(request.MemoryMb, request.Vcpus, request.Args, request.Env, hypervisor);
        RequireUnset(!Enum.IsDefined(request.RestartPolicy), $"'{request.RestartPolicy}' is not a restart policy");
        RequireUnset(replicas is < 0 or > MaxReplicas, $"'replicas' is {replicas}; allowed is 0 to {MaxReplicas}");
        RequireFeatures(request);
        Durations.RequireTimeout(request.WaitTimeout);
        RequireUnset(Durations.WaitTimeoutOf(request) is not null && !request.Autostart, "Cannot wait for an instance that is not started: set 'autostart'");
    }

    /// <exception cref="InvalidRequestException">No machine can boot with this.</exception>
    public static void RequireBootable(
        int? memoryMb,
        int? vcpus,
        IReadOnlyList<string>? args,
        IReadOnlyDictionary<string, string>? env,
        HypervisorInfo hypervisor)
    {
        RequireRange("memory_mb", memoryMb, hypervisor.MinMemoryMb, hypervisor.MaxMemoryMb, hypervisor);
        RequireRange("vcpus", vcpus, 1, hypervisor.MaxVcpus, hypervisor);
        RequireArgs(args ?? []);
        RequireEnv(env ?? new Dictionary<string, string>(StringComparer.Ordinal));
    }

    private static void RequireFeatures(CreateInstanceRequest request)
    {
        RequireUnset((request.Features & ~InstanceFeatures.DeleteOnStop) != InstanceFeatures.None, $"'{request.Features}' are not instance features");
        Durations.RequireCooldown(request.ScaleToZero?.CooldownTime);
        if (request.Features.HasFlag(InstanceFeatures.DeleteOnStop))
        {
            RequireUnset(
                request.RestartPolicy != RestartPolicy.Never,
                "To use the \"delete-on-stop\" feature, set the `restart_policy` to `never`");
            RequireUnset(request.ScaleToZero is not null, "Cannot specify 'scale_to_zero' with the feature 'delete-on-stop'");
        }
    }

    private static void RequireInherited(CreateInstanceRequest request, string when)
    {
        RequireUnset(request.Args is not null, $"Cannot specify 'args' when {when}");
        RequireUnset(request.Env is not null, $"Cannot specify 'env' when {when}");
        RequireUnset(request.MemoryMb is not null, $"Cannot specify 'memory_mb' when {when}");
        RequireUnset(request.Vcpus is not null, $"Cannot specify 'vcpus' when {when}");
    }

    private static void RequireUnset(bool isSet, string message)
    {
        if (isSet)
        {
            throw new InvalidRequestException(message);
        }
    }

    private static void RequireRange(string field, int? value, int min, int max, HypervisorInfo hypervisor)
    {
        if (value < min || value > max)
        {
            throw new InvalidRequestException($"'{field}' is {value}; allowed is {min} to {max} on '{hypervisor.Name}'");
        }
    }

    // Arguments and environment reach the guest as NUL-terminated strings.
    private static void RequireArgs(IReadOnlyList<string> args)
    {
        for (int i = 0; i < args.Count; i++)
        {
            if (args[i] is not { } arg || arg.Contains('\0', StringComparison.Ordinal))
            {
                throw new InvalidRequestException($"'args[{i}]' is null or contains a NUL character");
            }
        }
    }

    private static void RequireEnv(IReadOnlyDictionary<string, string> env)
    {
        foreach ((string name, string value) in env)
        {
            if (name.Length == 0 || name.AsSpan().ContainsAny('=', '\0'))
            {
                throw new InvalidRequestException($"'env' has the name '{name}': it must not be empty nor contain '=' or NUL");
            }

            if (value is null || value.Contains('\0', StringComparison.Ordinal))
            {
                throw new InvalidRequestException($"'env' has a value for '{name}' that is null or contains a NUL character");
            }
        }
    }
}
