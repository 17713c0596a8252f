using System.Text;
using System.Threading.Channels;
using Unikraft.Platform.Hypervisors;

namespace Unikraft.Platform.Kvm.Tests.Testing;

/// <summary>Keeps what a machine says, and gives its lines to whoever waits for them.</summary>
internal sealed class RecordingMonitor : IMachineMonitor
{
    private readonly Lock _lock = new();
    private readonly StringBuilder _text = new();
    private readonly StringBuilder _line = new();
    private readonly Channel<string> _lines = Channel.CreateUnbounded<string>();
    private readonly TaskCompletionSource _mainReached = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly Channel<string> _requests = Channel.CreateUnbounded<string>();
    private int _timesMainReached;

    /// <summary>Everything so far.</summary>
    internal string Text
    {
        get
        {
            lock (_lock)
            {
                return _text.ToString();
            }
        }
    }

    internal IReadOnlyList<string> Lines => Text.Split('\n', StringSplitOptions.RemoveEmptyEntries);

    internal Task MainReached => _mainReached.Task.Guarded();

    internal int TimesMainReached => Volatile.Read(ref _timesMainReached);

    public void OnConsoleOutput(ReadOnlySpan<byte> output)
    {
        lock (_lock)
        {
            foreach (char character in Encoding.Latin1.GetString(output))
            {
                _text.Append(character);
                if (character != '\n')
                {
                    _line.Append(character);
                    continue;
                }

                _lines.Writer.TryWrite(_line.ToString());
                _line.Clear();
            }
        }
    }

    public void OnMainReached()
    {
        Interlocked.Increment(ref _timesMainReached);
        _mainReached.TrySetResult();
    }

    /// <summary>What disks could not do.</summary>
    internal System.Collections.Concurrent.ConcurrentQueue<(int Slot, Exception Error)> DiskFailures { get; } = new();

    public void OnDiskFailed(MachineDisk disk, Exception error) => DiskFailures.Enqueue((disk.Slot, error));

    public void OnTemplateRequested() => _requests.Writer.TryWrite("template");

    public void OnForkRequested() => _requests.Writer.TryWrite("fork");

    /// <summary>Waits for the next request of the guest: <c>template</c> or <c>fork</c>.</summary>
    internal Task<string> ReadRequestAsync() => _requests.Reader.ReadAsync().AsTask().Guarded();

    /// <summary>Waits for the next line that begins in a certain way; skips the others.</summary>
    internal async Task<string> ReadLineAsync(string prefix = "")
    {
        while (true)
        {
            string line = await _lines.Reader.ReadAsync().Guarded();
            if (line.StartsWith(prefix, StringComparison.Ordinal))
            {
                return line;
            }
        }
    }
}
