using Unikraft.Platform.Hypervisors;

namespace Unikraft.Platform.Kvm.Snapshots.Files;

/// <summary>Adds up how far long work has come.</summary>
/// <param name="progress">Who is told; <see langword="null"/> for nobody.</param>
/// <param name="total">The bytes to be done.</param>
internal sealed class ByteProgress(IProgress<SnapshotProgress>? progress, long total)
{
    private long _completed;

    internal void Add(long bytes)
    {
        _completed += bytes;
        progress?.Report(new SnapshotProgress(_completed, total));
    }
}
