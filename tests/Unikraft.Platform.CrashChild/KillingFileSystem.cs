using Microsoft.Win32.SafeHandles;
using Unikraft.Platform.Kvm.Interop;
using Unikraft.Platform.Kvm.Snapshots.Files;

namespace Unikraft.Platform.CrashChild;

/// <summary>The file system of the snapshots of KVM machines, which stops at a given call.</summary>
/// <param name="kill">Knows where to stop.</param>
internal sealed class KillingFileSystem(KillSwitch kill) : IFileSystem
{
    // What is written past the page cache is written in whole blocks.
    private const int Block = 4096;

    private readonly HostFileSystem _host = HostFileSystem.Instance;

    public int MakeDirectory(string path)
    {
        kill.Step(nameof(MakeDirectory));
        return _host.MakeDirectory(path);
    }

    public int List(string path, List<string> names)
    {
        kill.Step(nameof(List));
        return _host.List(path, names);
    }

    public int Create(string path, out DescriptorHandle file)
    {
        kill.Step(nameof(Create));
        return _host.Create(path, out file);
    }

    public int OpenRead(string path, out DescriptorHandle file) => _host.OpenRead(path, out file);

    public int OpenDirect(string path, out DescriptorHandle file)
    {
        kill.Step(nameof(OpenDirect));
        return _host.OpenDirect(path, out file);
    }

    public int OpenLocked(string path, out DescriptorHandle file)
    {
        kill.Step("Lock");
        return _host.OpenLocked(path, out file);
    }

    public int Stat(DescriptorHandle file, out FileStamp stamp) => _host.Stat(file, out stamp);

    public int Read(DescriptorHandle file, Span<byte> buffer, long offset) => _host.Read(file, buffer, offset);

    public int Write(DescriptorHandle file, ReadOnlySpan<byte> buffer, long offset)
    {
        if (kill.Step(nameof(Write), mayBegin: true))
        {
            _host.Write(file, buffer[..KillSwitch.Half(buffer.Length, Block)], offset);
            kill.StopNow();
        }

        return _host.Write(file, buffer, offset);
    }

    public int WriteBack(DescriptorHandle file, bool isAwaited)
    {
        kill.Step(nameof(WriteBack));
        return _host.WriteBack(file, isAwaited);
    }

    public int Sync(DescriptorHandle file) => Decide(nameof(Sync)) ?? _host.Sync(file);

    public int SyncData(SafeFileHandle file) => Decide(nameof(Sync)) ?? _host.SyncData(file);

    public int SyncData(DescriptorHandle file) => Decide(nameof(Sync)) ?? _host.SyncData(file);

    public int Rename(string from, string to) => Decide(nameof(Rename)) ?? _host.Rename(from, to);

    public int Delete(string path) => Decide(nameof(Delete)) ?? _host.Delete(path);

    public int SyncDirectory(string path) => Decide(nameof(SyncDirectory)) ?? _host.SyncDirectory(path);

    private int? Decide(string call) => -kill.StepDecisive(call);
}
