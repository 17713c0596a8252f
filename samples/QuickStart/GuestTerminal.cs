using System.Text;
using Unikraft.Platform;

namespace QuickStart;

/// <summary>The console of an instance, line by line.</summary>
internal sealed class GuestTerminal(IInstanceConsole console) : IAsyncDisposable
{
    private readonly StreamReader _output = new(console.Output.AsStream(), Encoding.UTF8);

    /// <summary>The next line that begins with the given text; others are passed over.</summary>
    public async Task<string> ReadLineAsync(string prefix, CancellationToken cancellationToken)
    {
        while (await _output.ReadLineAsync(cancellationToken) is { } line)
        {
            if (line.StartsWith(prefix, StringComparison.Ordinal))
            {
                return line;
            }
        }

        throw new EndOfStreamException($"The console ended before a line that begins with '{prefix}'.");
    }

    public async Task WriteLineAsync(string line, CancellationToken cancellationToken) =>
        await console.Input.WriteAsync(Encoding.UTF8.GetBytes(line + "\n"), cancellationToken);

    /// <summary>Gives the guest a line and returns the one it answers with.</summary>
    public async Task<string> AskAsync(string line, string answerPrefix, CancellationToken cancellationToken)
    {
        await WriteLineAsync(line, cancellationToken);
        return await ReadLineAsync(answerPrefix, cancellationToken);
    }

    public async ValueTask DisposeAsync()
    {
        await console.DisposeAsync();
        _output.Dispose();
    }
}
