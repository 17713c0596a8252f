namespace Unikraft.Platform.Hypervisors;

/// <summary>Hears of what happens in a machine.</summary>
/// <remarks>Called on the thread of a vCPU, which stands still meanwhile: implementations must be quick, must not block and must not throw.</remarks>
public interface IMachineMonitor
{
    /// <summary>The guest wrote to its console.</summary>
    /// <param name="output">The bytes, valid during the call.</param>
    void OnConsoleOutput(ReadOnlySpan<byte> output);

    /// <summary>The app reached its main entry point. Called at most once, and never for a machine restored from behind that point.</summary>
    void OnMainReached();
}
