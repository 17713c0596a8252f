using System.Diagnostics;
using Unikraft.Platform.Storage;

namespace Unikraft.Platform.CrashChild;

/// <summary>The file system of the host, on which the process kills itself at a given call: before it, or in the middle of a write.</summary>
internal sealed class KillingFileLayer(IFileLayer host, long killAt) : IFileLayer
{
    private long _calls;

    internal long Calls => Interlocked.Read(ref _calls);

    public void MakeDirectory(string path)
    {
        Step();
        host.MakeDirectory(path);
    }

    public IReadOnlyList<string> List(string directory)
    {
        Step();
        return host.List(directory);
    }

    public IFile Create(string path)
    {
        Step();
        return new KillingFile(this, host.Create(path));
    }

    public IFile? Open(string path)
    {
        Step();
        return host.Open(path) is { } file ? new KillingFile(this, file) : null;
    }

    public IDisposable? Lock(string path)
    {
        Step();
        return host.Lock(path);
    }

    public void Rename(string from, string to)
    {
        Step();
        host.Rename(from, to);
    }

    public void Delete(string path)
    {
        Step();
        host.Delete(path);
    }

    public void SyncDirectory(string path)
    {
        Step();
        host.SyncDirectory(path);
    }

    public long FreeBytes(string directory) => host.FreeBytes(directory);

    private bool Step(bool mayFinish = false)
    {
        if (Interlocked.Increment(ref _calls) != killAt)
        {
            return false;
        }

        if (!mayFinish)
        {
            Kill();
        }

        return true;
    }

    private static void Kill()
    {
        // SIGKILL, as if from outside: nothing of the runtime runs any more.
        using Process self = Process.GetCurrentProcess();
        self.Kill();
        new ManualResetEventSlim().Wait();
    }

    private sealed class KillingFile(KillingFileLayer layer, IFile file) : IFile
    {
        public long Length => file.Length;

        public int Read(long offset, Span<byte> buffer) => file.Read(offset, buffer);

        public int Write(long offset, ReadOnlySpan<byte> data)
        {
            if (layer.Step(mayFinish: true))
            {
                file.Write(offset, data[..(data.Length / 2)]);
                Kill();
            }

            return file.Write(offset, data);
        }

        public void Sync()
        {
            layer.Step();
            file.Sync();
        }

        public void Dispose() => file.Dispose();
    }
}
