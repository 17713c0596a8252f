namespace Unikraft.Platform.Kvm.Boot;

/// <summary>The permission bits of an ELF segment (<c>p_flags</c>).</summary>
[Flags]
internal enum ElfSegmentAccess
{
    None = 0,
    Execute = 1,
    Write = 2,
    Read = 4,
}
