using Microsoft.Extensions.Logging;

namespace Unikraft.Platform.TestKit;

/// <summary>One entry that was logged.</summary>
/// <param name="Category">The category of the logger.</param>
/// <param name="Level">The level.</param>
/// <param name="Id">The event.</param>
/// <param name="Message">The formatted message.</param>
/// <param name="Exception">The exception, if one was given.</param>
public sealed record LogRecord(string Category, LogLevel Level, EventId Id, string Message, Exception? Exception);
