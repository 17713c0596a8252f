using Unikraft.Platform.Storage;

namespace Unikraft.Platform.CrashChild;

/// <summary>The file system of the host, which stops at a given call.</summary>
/// <param name="host">The file system.</param>
/// <param name="kill">Knows where to stop.</param>
internal sealed class KillingFileLayer(IFileLayer host, KillSwitch kill) : IFileLayer
{
    public void MakeDirectory(string path)
    {
        kill.Step(nameof(MakeDirectory));
        host.MakeDirectory(path);
    }

    public IReadOnlyList<string> List(string directory)
    {
        kill.Step(nameof(List));
        return host.List(directory);
    }

    public IFile Create(string path)
    {
        kill.Step(nameof(Create));
        return new KillingFile(kill, host.Create(path));
    }

    public IFile? Open(string path)
    {
        kill.Step(nameof(Open));
        return Wrap(host.Open(path));
    }

    public IFile? OpenShared(string path, bool isReadOnly)
    {
        kill.Step(nameof(OpenShared));
        return Wrap(host.OpenShared(path, isReadOnly));
    }

    public IFile CreateNew(string path)
    {
        kill.Step(nameof(CreateNew));
        return new KillingFile(kill, host.CreateNew(path));
    }

    public FileStatus? Stat(string path) => host.Stat(path);

    public IDisposable? Lock(string path)
    {
        kill.Step(nameof(Lock));
        return host.Lock(path);
    }

    public void Rename(string from, string to)
    {
        Decide(kill, nameof(Rename));
        host.Rename(from, to);
    }

    public void Delete(string path)
    {
        Decide(kill, nameof(Delete));
        host.Delete(path);
    }

    public void DeleteDirectory(string path)
    {
        Decide(kill, nameof(DeleteDirectory));
        host.DeleteDirectory(path);
    }

    public void SyncDirectory(string path)
    {
        Decide(kill, nameof(SyncDirectory));
        host.SyncDirectory(path);
    }

    public long FreeBytes(string directory) => host.FreeBytes(directory);

    private static void Decide(KillSwitch kill, string call)
    {
        if (kill.StepDecisive(call) is { } errno)
        {
            throw new IOException("It was made to fail.", errno);
        }
    }

    private KillingFile? Wrap(IFile? file) => file is null ? null : new KillingFile(kill, file);

    private sealed class KillingFile(KillSwitch kill, IFile file) : IFile
    {
        public long Length => file.Length;

        public int Read(long offset, Span<byte> buffer) => file.Read(offset, buffer);

        public int Write(long offset, ReadOnlySpan<byte> data)
        {
            if (kill.Step(nameof(Write), mayBegin: true))
            {
                file.Write(offset, data[..KillSwitch.Half(data.Length)]);
                kill.StopNow();
            }

            return file.Write(offset, data);
        }

        public void SetLength(long length)
        {
            kill.Step(nameof(SetLength));
            file.SetLength(length);
        }

        public void Sync()
        {
            Decide(kill, nameof(Sync));
            file.Sync();
        }

        public void Dispose() => file.Dispose();
    }
}
