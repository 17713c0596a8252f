using System.Text;
using System.Threading.Channels;
using Unikraft.Platform.Hypervisors;

namespace Unikraft.Platform.Contracts;

/// <summary>Keeps what is heard of a machine.</summary>
public sealed class RecordingMonitor : IMachineMonitor
{
    private readonly Lock _lock = new();
    private readonly StringBuilder _output = new();
    private readonly Channel<string> _requests = Channel.CreateUnbounded<string>();
    private readonly TaskCompletionSource _main = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private TaskCompletionSource _written = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private int _mainCount;
    private int _read;

    /// <summary>Completes when the app has reached its main entry point.</summary>
    public Task Main => _main.Task;

    /// <summary>How often that was heard.</summary>
    public int MainCount => Volatile.Read(ref _mainCount);

    /// <summary>All output.</summary>
    public string Output
    {
        get
        {
            lock (_lock)
            {
                return _output.ToString();
            }
        }
    }

    /// <summary>All lines.</summary>
    public IReadOnlyList<string> Lines => Output.Split('\n', StringSplitOptions.RemoveEmptyEntries);

    /// <inheritdoc/>
    public void OnConsoleOutput(ReadOnlySpan<byte> output)
    {
        TaskCompletionSource written;
        lock (_lock)
        {
            _output.Append(Encoding.UTF8.GetString(output));
            written = _written;
            _written = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        }

        written.SetResult();
    }

    /// <inheritdoc/>
    public void OnMainReached()
    {
        Interlocked.Increment(ref _mainCount);
        _main.TrySetResult();
    }

    /// <inheritdoc/>
    public void OnTemplateRequested() => _requests.Writer.TryWrite("template");

    /// <inheritdoc/>
    public void OnForkRequested() => _requests.Writer.TryWrite("fork");

    /// <summary>The next request of the guest: <c>template</c> or <c>fork</c>.</summary>
    public Task<string> ReadRequestAsync() => _requests.Reader.ReadAsync().Guarded();

    /// <summary>The next line.</summary>
    public async Task<string> ReadLineAsync()
    {
        while (true)
        {
            Task written;
            lock (_lock)
            {
                string text = _output.ToString();
                int end = text.IndexOf('\n', _read);
                if (end >= 0)
                {
                    string line = text[_read..end];
                    _read = end + 1;
                    return line;
                }

                written = _written.Task;
            }

            await written.Guarded();
        }
    }
}
