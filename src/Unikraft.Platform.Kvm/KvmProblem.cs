namespace Unikraft.Platform.Kvm;

/// <summary>Why KVM cannot be used.</summary>
public enum KvmProblem
{
    /// <summary>It can be used.</summary>
    None = 0,

    /// <summary>The host is not Linux on x86-64.</summary>
    UnsupportedHost,

    /// <summary>There is no <c>/dev/kvm</c>.</summary>
    DeviceMissing,

    /// <summary>The process may not open <c>/dev/kvm</c>.</summary>
    PermissionDenied,

    /// <summary>The device is of another API version than 12.</summary>
    ApiVersion,

    /// <summary>The device lacks an extension.</summary>
    MissingExtension,

    /// <summary>The device is there, but does not answer as it should.</summary>
    DeviceFailed,
}
