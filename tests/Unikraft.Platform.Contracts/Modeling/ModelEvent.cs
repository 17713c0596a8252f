using System.Runtime.InteropServices;

namespace Unikraft.Platform.Contracts.Modeling;

/// <summary>An instance has come into a state.</summary>
/// <param name="Name">The instance.</param>
/// <param name="State">The state; <see langword="null"/> when it is gone.</param>
/// <param name="At">When.</param>
[StructLayout(LayoutKind.Auto)]
public readonly record struct ModelEvent(string Name, InstanceState? State, TimeSpan At);
