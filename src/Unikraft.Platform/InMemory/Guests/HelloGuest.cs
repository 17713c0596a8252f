namespace Unikraft.Platform.InMemory.Guests;

/// <summary><c>hello</c>: says what the platform told it.</summary>
internal sealed class HelloGuest : ScriptedGuest
{
    public override GuestStep Step(ScriptedGuestContext context)
    {
        context.WriteLine($"Hello from a flat guest: {context.Vcpus} vCPU(s), {context.MemoryMb} MiB");
        for (int i = 0; i < context.Args.Count; i++)
        {
            context.WriteLine($"arg[{i}]={context.Args[i]}");
        }

        foreach ((string name, string value) in context.Env)
        {
            context.WriteLine($"env {name}={value}");
        }

        return GuestStep.Exit(0);
    }

    public override ScriptedGuest Clone() => new HelloGuest();

    public override byte[] Save() => [];

    public override void Load(ReadOnlySpan<byte> saved)
    {
        // It has no state.
    }
}
