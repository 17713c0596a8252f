using System.Buffers;
using System.Text;

namespace Unikraft.Platform.Contracts;

/// <summary>Reads and writes the console of an instance line by line.</summary>
public sealed class ConsoleSession(IInstanceConsole console) : IAsyncDisposable
{
    /// <summary>The console.</summary>
    public IInstanceConsole Console { get; } = console;

    /// <summary>The next line of output; <see langword="null"/> at its end.</summary>
    public async Task<string?> ReadLineAsync()
    {
        while (true)
        {
            var read = await Console.Output.ReadAsync().Guarded();
            if (read.Buffer.PositionOf((byte)'\n') is { } end)
            {
                string line = Encoding.UTF8.GetString(read.Buffer.Slice(0, end));
                Console.Output.AdvanceTo(read.Buffer.GetPosition(1, end));
                return line;
            }

            Console.Output.AdvanceTo(read.Buffer.Start, read.Buffer.End);
            if (read.IsCompleted)
            {
                return null;
            }
        }
    }

    /// <summary>The next line that begins with a text.</summary>
    /// <param name="prefix">The text.</param>
    public async Task<string> ReadLineAsync(string prefix)
    {
        while (await ReadLineAsync() is { } line)
        {
            if (line.StartsWith(prefix, StringComparison.Ordinal))
            {
                return line;
            }
        }

        throw new InvalidOperationException($"The output ended before a line that begins with '{prefix}'.");
    }

    /// <summary>Writes a line.</summary>
    /// <param name="line">The line, without its end.</param>
    public Task WriteLineAsync(string line) => Console.Input.WriteAsync(Encoding.UTF8.GetBytes(line + "\n")).Guarded();

    /// <summary>Asks a counter guest to tick.</summary>
    public async Task<CounterTick> TickAsync()
    {
        await WriteLineAsync("tick");
        return CounterTick.Parse(await ReadLineAsync("nonce="));
    }

    /// <summary>Asks a counter guest for its mark.</summary>
    public async Task<string> ShowAsync()
    {
        await WriteLineAsync("show");
        return (await ReadLineAsync("mark="))["mark=".Length..];
    }

    /// <inheritdoc/>
    public ValueTask DisposeAsync() => Console.DisposeAsync();
}
