using System.Text;
using System.Text.RegularExpressions;
using Unikraft.Platform.Kvm.Tests.Testing;

namespace Unikraft.Platform.Kvm.Tests.Machines.Kernels;

/// <summary>A shell on the console of an instance, which runs what is typed.</summary>
internal sealed partial class LinuxShell : IAsyncDisposable
{
    private readonly IInstanceConsole _console;
    private readonly StreamReader _output;
    private readonly StringBuilder _seen = new();

    /// <param name="platform">The platform.</param>
    /// <param name="instance">The instance.</param>
    /// <param name="fromStart">Whether what was said before is read as well.</param>
    internal LinuxShell(IUnikraftPlatform platform, NameOrUuid instance, bool fromStart = true)
    {
        _console = platform.Instances.AttachConsole(instance, new ConsoleOptions { FromStart = fromStart });
        _output = new StreamReader(_console.Output.AsStream(), Encoding.Latin1);
    }

    internal async Task TypeAsync(string line) => await _console.Input.WriteAsync(Encoding.UTF8.GetBytes(line + "\n")).Guarded();

    /// <summary>Waits for the next line that begins in a certain way; skips the others.</summary>
    internal async Task<string> ReadLineAsync(string prefix)
    {
        try
        {
            while (await _output.ReadLineAsync(CancellationToken.None).Guarded() is { } line)
            {
                _seen.AppendLine(line);
                if (line.StartsWith(prefix, StringComparison.Ordinal))
                {
                    return line;
                }
            }

            throw new EndOfStreamException($"The console ended without '{prefix}':\n{_seen}");
        }
        catch (TimeoutException error)
        {
            throw new TimeoutException($"There was no line '{prefix}'. The console:\n{_seen}", error);
        }
    }

    /// <summary>Runs a command that prints a line <c>PREFIX: NAME=VALUE ...</c>.</summary>
    internal async Task<IReadOnlyDictionary<string, string>> AskAsync(string command, string prefix)
    {
        await TypeAsync(command);
        return await ReadFieldsAsync(prefix);
    }

    /// <summary>Waits for the next line <c>PREFIX: NAME=VALUE ...</c>.</summary>
    internal async Task<IReadOnlyDictionary<string, string>> ReadFieldsAsync(string prefix) => Field().Matches(await ReadLineAsync($"{prefix}: ")).ToDictionary(
        static match => match.Groups["name"].Value,
        static match => match.Groups["value"].Value,
        StringComparer.Ordinal);

    /// <summary>Compares the guest's clock with the host's.</summary>
    internal Task AssertClockAsync() => LinuxClock.AssertRightAsync(TimeProvider.System, async () =>
    {
        await TypeAsync(LinuxClock.Command);
        return await ReadLineAsync(LinuxClock.Prefix);
    });

    public async ValueTask DisposeAsync()
    {
        _output.Dispose();
        await _console.DisposeAsync();
    }

    [GeneratedRegex("(?<name>[a-z]+)=(?<value>[^ \r]+)", RegexOptions.ExplicitCapture | RegexOptions.NonBacktracking)]
    private static partial Regex Field();
}
