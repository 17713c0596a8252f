namespace Unikraft.Platform.Kvm.Boot.Kernels;

/// <summary>What a kernel does when it has reached its main entry point, unless it says so on the platform device.</summary>
internal enum RunningRule
{
    /// <summary>It opens its console for input: Linux does that right before it starts its first program.</summary>
    ListensToConsole,

    /// <summary>It prints something.</summary>
    FirstOutput,
}
