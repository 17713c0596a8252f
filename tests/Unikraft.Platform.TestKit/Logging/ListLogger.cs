using Microsoft.Extensions.Logging;

namespace Unikraft.Platform.TestKit;

/// <summary>A logger that keeps what is logged. Thread-safe.</summary>
/// <param name="category">The category of its records. Default: empty.</param>
public sealed class ListLogger(string category = "") : ILogger
{
    private readonly Lock _gate = new();
    private readonly List<LogRecord> _records = [];
    private readonly Action<LogRecord>? _forward;

    internal ListLogger(string category, Action<LogRecord> forward)
        : this(category) => _forward = forward;

    /// <summary>What was logged so far, oldest first.</summary>
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
    public bool IsEnabled(LogLevel logLevel) => logLevel != LogLevel.None;

    /// <inheritdoc/>
    public IDisposable? BeginScope<TState>(TState state)
        where TState : notnull => null;

    /// <inheritdoc/>
    public void Log<TState>(
        LogLevel logLevel,
        EventId eventId,
        TState state,
        Exception? exception,
        Func<TState, Exception?, string> formatter)
    {
        ArgumentNullException.ThrowIfNull(formatter);
        LogRecord record = new(category, logLevel, eventId, formatter(state, exception), exception);
        lock (_gate)
        {
            _records.Add(record);
        }

        _forward?.Invoke(record);
    }
}
