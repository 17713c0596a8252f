using System.Runtime.InteropServices;

namespace Unikraft.Platform.Storage;

/// <summary>What a state belongs to. The numbers are those of the files.</summary>
internal enum StateKind : byte
{
    Instance = 1,
    Checkpoint = 2,
    Template = 3,
    Lineage = 4,
}

/// <summary>The one whose state is kept.</summary>
[StructLayout(LayoutKind.Auto)]
internal readonly record struct StateKey(StateKind Kind, Guid Uuid)
{
    public override string ToString() => FormattableString.Invariant($"{Kind.ToString().ToLowerInvariant()} {Uuid:D}");
}
