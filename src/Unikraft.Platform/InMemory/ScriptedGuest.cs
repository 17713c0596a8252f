namespace Unikraft.Platform.InMemory;

/// <summary>A guest of the in-memory backend: a state machine which the backend advances step by step.</summary>
/// <remarks>
/// Steps of one guest never run at the same time, but on changing threads of the pool. A step must return promptly and must not block: what
/// it waits for it says in its result. All state that matters is in fields which <see cref="Clone"/> copies, so that branches and
/// checkpoints are real. A step that throws ends its machine as failed.
/// </remarks>
public abstract class ScriptedGuest
{
    /// <summary>
    /// Whether the app has reached its main entry point before the first step. Default: true. A guest that boots slowly, or not at all, returns
    /// false and calls <see cref="ScriptedGuestContext.SetInitLevel"/> when it gets there.
    /// </summary>
    public virtual bool StartsAtMain => true;

    /// <summary>Does a bit of work.</summary>
    /// <param name="context">The machine that the guest runs in. Not to be kept: a clone runs in another one.</param>
    /// <returns>What the guest does next.</returns>
    public abstract GuestStep Step(ScriptedGuestContext context);

    /// <summary>Copies the guest with all its state, between two steps. The copy must share nothing that a step changes.</summary>
    public abstract ScriptedGuest Clone();

    /// <summary>Writes the guest down with all its state, between two steps, for another process to go on with.</summary>
    /// <returns>What <see cref="Load"/> understands; <see langword="null"/>, the default, for a guest that cannot be kept in files.</returns>
    public virtual byte[]? Save() => null;

    /// <summary>Takes on a state that was written down. Called once, on a new guest.</summary>
    /// <param name="saved">What <see cref="Save"/> has returned.</param>
    /// <exception cref="NotSupportedException">The guest cannot be kept in files.</exception>
    /// <exception cref="FormatException">The state is not one of this guest.</exception>
    public virtual void Load(ReadOnlySpan<byte> saved) => throw new NotSupportedException("The guest cannot be kept in files.");
}
