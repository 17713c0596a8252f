using System.Runtime.InteropServices;

namespace Unikraft.Platform.Kvm.Interop;

/// <summary><c>/dev/kvm</c>, open.</summary>
internal sealed class KvmDevice : IDisposable
{
    internal const string Path = "/dev/kvm";

    private readonly DescriptorHandle _descriptor;
    private readonly Lazy<uint[]> _savedMsrs;
    private readonly KvmCpuid2 _supportedCpuid;
    private readonly KvmVm _idleVm;
    private readonly KvmVcpu _idleVcpu;

    private KvmDevice(DescriptorHandle descriptor)
    {
        _descriptor = descriptor;
        _savedMsrs = new Lazy<uint[]>(ListMsrs);
        RunPageSize = HostError.Check(KvmIoctl.Call(_descriptor, KvmConstants.GetVcpuMmapSize, 0), "KVM_GET_VCPU_MMAP_SIZE");
        _supportedCpuid.Nent = KvmCpuid2.Capacity;
        HostError.Check(KvmIoctl.Call(_descriptor, KvmConstants.GetSupportedCpuid, ref _supportedCpuid), "KVM_GET_SUPPORTED_CPUID");

        // The first vCPU of a host and the end of the last one make the kernel patch its own code, which takes longer than
        // making the vCPU. One that never runs keeps that out of the way of every machine.
        _idleVm = CreateVm();
        try
        {
            _idleVcpu = _idleVm.CreateVcpu(index: 0);
            TscKhz = _idleVcpu.GetTscKhz();
        }
        catch
        {
            _idleVm.Dispose();
            throw;
        }
    }

    /// <summary>The size of the page shared with the kernel for each vCPU.</summary>
    internal int RunPageSize { get; }

    /// <summary>The frequency of the time stamp counter of a vCPU in kHz, unless another one is set; 0 when KVM does not tell.</summary>
    internal int TscKhz { get; }

    /// <summary>What KVM can offer a guest, asked for once.</summary>
    internal ref readonly KvmCpuid2 SupportedCpuid => ref _supportedCpuid;

    internal static KvmDevice Open()
    {
        DescriptorHandle descriptor =
            new(HostError.Check(Libc.Open(Path, Libc.OpenReadWrite | Libc.OpenCloseOnExec), $"Opening {Path}"));
        try
        {
            return new KvmDevice(descriptor);
        }
        catch
        {
            descriptor.Dispose();
            throw;
        }
    }

    /// <summary>Asks for the version of the API and the value of capabilities without keeping the device open.</summary>
    internal static (int ApiVersion, int[] Values) Query(string path, ReadOnlySpan<int> capabilities)
    {
        using DescriptorHandle descriptor =
            new(HostError.Check(Libc.Open(path, Libc.OpenReadWrite | Libc.OpenCloseOnExec), $"Opening {path}"));
        int version = HostError.Check(KvmIoctl.Call(descriptor, KvmConstants.GetApiVersion, 0), "KVM_GET_API_VERSION");
        int[] values = new int[capabilities.Length];
        for (int i = 0; i < values.Length; i++)
        {
            values[i] = HostError.Check(KvmIoctl.Call(descriptor, KvmConstants.CheckExtension, capabilities[i]), "KVM_CHECK_EXTENSION");
        }

        return (version, values);
    }

    /// <summary>The MSRs that KVM can save and restore on this host; not every vCPU has all of them.</summary>
    internal IReadOnlyList<uint> SavedMsrs => _savedMsrs.Value;

    private uint[] ListMsrs()
    {
        KvmMsrList list = new() { NMsrs = KvmMsrList.Capacity };
        HostError.Check(KvmIoctl.Call(_descriptor, KvmConstants.GetMsrIndexList, ref list), "KVM_GET_MSR_INDEX_LIST");
        return ((ReadOnlySpan<uint>)list.Indices)[..(int)list.NMsrs].ToArray();
    }

    /// <summary>Whether KVM has a capability.</summary>
    internal bool Has(int capability) =>
        HostError.Check(KvmIoctl.Call(_descriptor, KvmConstants.CheckExtension, capability), "KVM_CHECK_EXTENSION") > 0;

    internal KvmVm CreateVm()
    {
        int result;
        do
        {
            result = KvmIoctl.Call(_descriptor, KvmConstants.CreateVm, 0);
        }
        while (result < 0 && Marshal.GetLastPInvokeError() == Libc.ErrnoInterrupted);

        return new KvmVm(this, new DescriptorHandle(HostError.Check(result, "KVM_CREATE_VM")));
    }

    public void Dispose()
    {
        _idleVcpu.Dispose();
        _idleVm.Dispose();
        _descriptor.Dispose();
    }
}
