using System.Globalization;

namespace Unikraft.Platform.InMemory.Guests;

/// <summary><c>crash KIND [N]</c>: ends in one particular way, and says so first.</summary>
internal sealed class CrashGuest : ScriptedGuest
{
    private const int UsageError = 64;
    private const int InputOutputError = 5;
    private const ulong NotMapped = 0x100_0000_0000;
    private const ulong ImageData = 0x102000;
    private const int InvalidOpcode = 6;
    private const int PageFault = 14;

    // Bits of a page fault's error code.
    private const ulong Mapped = 1;
    private const ulong Write = 2;
    private const ulong User = 4;
    private const ulong Fetch = 16;

    // What each kind does, and its N when none is given.
    private static readonly OrderedDictionary<string, (Func<ScriptedGuestContext, int, GuestStep> Run, int N)> Kinds = new(StringComparer.Ordinal)
    {
        ["div0"] = (static (_, _) => GuestStep.Crash(vector: 0), 0),
        ["ud"] = (static (_, _) => GuestStep.Crash(InvalidOpcode), 0),
        ["read-unmapped"] = (static (_, _) => GuestStep.Crash(PageFault, User, NotMapped), 0),
        ["write-unmapped"] = (static (_, _) => GuestStep.Crash(PageFault, User | Write, NotMapped), 0),
        ["write-readonly"] = (static (_, _) => GuestStep.Crash(PageFault, User | Write | Mapped, ImageData), 0),
        ["exec-data"] = (static (_, _) => GuestStep.Crash(PageFault, User | Fetch | Mapped, ImageData, ImageData), 0),
        ["stack"] = (static (_, _) => GuestStep.StackOverflow(ImageData - 8), 0),
        ["oom"] = (static (context, _) => GuestStep.Crash(PageFault, User | Write, (ulong)context.MemoryMb << 20), 0),
        ["gp"] = (static (_, _) => GuestStep.Crash(vector: 13), 0),
        ["abort"] = (static (_, n) => GuestStep.Stop(StopCodeReason.Exception, n & 0xFF), InputOutputError),
        ["exit"] = (static (_, n) => GuestStep.Exit(n), 1),
        ["return"] = (static (_, n) => GuestStep.Exit(n), 1),
        ["loop"] = (static (_, _) => GuestStep.Hang, 0),
        ["vanish"] = (static (_, _) => GuestStep.PowerOff, 0),
        ["syscall"] = (static (_, _) => GuestStep.Crash(InvalidOpcode, instructionPointer: 0xFD000), 0),
        ["jump-null"] = (static (_, _) => GuestStep.Crash(PageFault, User | Fetch, address: 0, instructionPointer: 0), 0),
        ["ignore-stop"] = (static (_, _) => GuestStep.Wait(GuestEvents.Wake), 0),
        ["crash-on-stop"] = (static (context, _) => OnStop(context, GuestStep.Crash(InvalidOpcode)), 0),
        ["exit-on-stop"] = (static (context, n) => OnStop(context, GuestStep.Exit(n)), 1),
    };

    private bool _hasAnnounced;

    public override GuestStep Step(ScriptedGuestContext context)
    {
        if (Parse(context.Args) is not { } kind)
        {
            context.WriteLine($"usage: crash KIND [N], KIND one of {string.Join(' ', Kinds.Keys)}");
            return GuestStep.Exit(UsageError);
        }

        if (!_hasAnnounced)
        {
            _hasAnnounced = true;
            context.WriteLine($"crashing: {context.Args[1]}");
        }

        return kind.Run(context, kind.N);
    }

    public override ScriptedGuest Clone() => new CrashGuest { _hasAnnounced = _hasAnnounced };

    public override byte[] Save() => [_hasAnnounced ? (byte)1 : (byte)0];

    public override void Load(ReadOnlySpan<byte> saved) => _hasAnnounced = saved is [1];

    private static GuestStep OnStop(ScriptedGuestContext context, GuestStep end) =>
        context.IsStopRequested ? end : GuestStep.Wait(GuestEvents.StopRequested);

    private static (Func<ScriptedGuestContext, int, GuestStep> Run, int N)? Parse(IReadOnlyList<string> args)
    {
        if (args.Count is < 2 or > 3 || !Kinds.TryGetValue(args[1], out var kind))
        {
            return null;
        }

        if (args.Count == 2)
        {
            return kind;
        }

        return int.TryParse(args[2], NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out int n) ? (kind.Run, n) : null;
    }
}
