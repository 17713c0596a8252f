using System.Diagnostics;

namespace LinuxKernel;

/// <summary>The terminal passes every key on, interrupts included: the guest has a terminal of its own.</summary>
internal sealed class TerminalMode : IDisposable
{
    private readonly bool _isTerminal = !Console.IsInputRedirected;

    private TerminalMode() => Set("raw", "-echo");

    public static TerminalMode EnterRaw() => new();

    public void Dispose() => Set("sane");

    private void Set(params ReadOnlySpan<string> modes)
    {
        if (_isTerminal)
        {
            ProcessStartInfo start = new("stty");
            foreach (string mode in modes)
            {
                start.ArgumentList.Add(mode);
            }

            using Process? stty = Process.Start(start);
            stty?.WaitForExit();
        }
    }
}
