using Microsoft.Extensions.Logging;

namespace Unikraft.Platform.TestKit;

/// <summary>Makes loggers that all keep what is logged in one list. Thread-safe.</summary>
public sealed class ListLoggerFactory : ILoggerFactory
{
    private readonly Lock _gate = new();
    private readonly List<LogRecord> _records = [];

    /// <summary>What was logged so far by all loggers, oldest first.</summary>
    public IReadOnlyList<LogRecord> Records
    {
        get
        {
            lock (_gate)
            {
                return [.. _records];
            }
        }
    }

    /// <inheritdoc/>
    public ILogger CreateLogger(string categoryName) => new ListLogger(categoryName, Add);

    /// <summary>Not supported: there is one list.</summary>
    /// <param name="provider">Not used.</param>
    /// <exception cref="NotSupportedException">Always.</exception>
    public void AddProvider(ILoggerProvider provider) => throw new NotSupportedException("A list logger factory has no providers.");

    /// <inheritdoc/>
    public void Dispose()
    {
    }

    private void Add(LogRecord record)
    {
        lock (_gate)
        {
            _records.Add(record);
        }
    }
}
