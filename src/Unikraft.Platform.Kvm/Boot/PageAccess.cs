namespace Unikraft.Platform.Kvm.Boot;

/// <summary>What may be done with a page. Reading is always allowed, for ring 0 everything but executing the unexecutable is.</summary>
[Flags]
internal enum PageAccess
{
    Read = 0,
    Write = 1,
    Execute = 2,
    User = 4,
}
