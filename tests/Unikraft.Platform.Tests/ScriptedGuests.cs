using Unikraft.Platform.InMemory;

namespace Unikraft.Platform.Tests;

/// <summary>A guest without state, given as a function.</summary>
internal sealed class FunctionGuest(Func<ScriptedGuestContext, GuestStep> step, bool startsAtMain = true) : ScriptedGuest
{
    public override bool StartsAtMain => startsAtMain;

    public override GuestStep Step(ScriptedGuestContext context) => step(context);

    public override ScriptedGuest Clone() => this;
}

/// <summary>Boots when it gets input, and until then is starting.</summary>
internal sealed class SlowBootGuest : ScriptedGuest
{
    public override bool StartsAtMain => false;

    public override GuestStep Step(ScriptedGuestContext context)
    {
        if (context.ReadLine() is { } line)
        {
            if (string.Equals(line, "die", StringComparison.Ordinal))
            {
                return GuestStep.Stop(StopCodeReason.HardwareError, errno: 5);
            }

            context.SetInitLevel(StopCode.AppInitLevel);
        }

        return context.IsStopRequested
            ? GuestStep.Exit(0)
            : GuestStep.Wait(GuestEvents.ConsoleInput | GuestEvents.StopRequested);
    }

    public override ScriptedGuest Clone() => new SlowBootGuest();
}
