using System.IO.Pipelines;

namespace Unikraft.Platform;

/// <summary>The console of an instance, attached to.</summary>
/// <remarks>
/// Detaching is disposing. The guest is never held up by a reader: one that falls behind by more than the log's capacity misses
/// the oldest bytes.
/// </remarks>
public interface IInstanceConsole : IAsyncDisposable
{
    /// <summary>What the guest writes, across stops and starts. Completes when the instance is deleted or the console is disposed of.</summary>
    PipeReader Output { get; }

    /// <summary>
    /// What the guest can read. Bytes wait until the guest takes them; those written while the instance is stopped wait for its next start.
    /// </summary>
    PipeWriter Input { get; }
}
