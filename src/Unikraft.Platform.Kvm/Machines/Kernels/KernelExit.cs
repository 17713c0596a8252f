namespace Unikraft.Platform.Kvm.Machines.Kernels;

/// <summary>How a machine with a kernel ended: one of the nested cases, and no other.</summary>
internal abstract record KernelExit
{
    private KernelExit()
    {
    }

    /// <summary>The guest switched the machine off, by ACPI.</summary>
    internal sealed record PoweredOff : KernelExit;

    /// <summary>The guest reset the machine, by ACPI or the keyboard controller.</summary>
    internal sealed record Reset : KernelExit;

    /// <summary>A CPU exception had no handler that could be entered. A kernel without another way to reset does that on purpose.</summary>
    internal sealed record TripleFault : KernelExit;

    /// <summary>The machine was killed from outside.</summary>
    internal sealed record Killed : KernelExit;

    /// <summary>The machine could not go on.</summary>
    /// <param name="Error">Why.</param>
    internal sealed record Failed(Exception Error) : KernelExit;
}
