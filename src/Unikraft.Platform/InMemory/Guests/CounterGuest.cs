using System.Buffers.Binary;
using System.Globalization;

namespace Unikraft.Platform.InMemory.Guests;

/// <summary><c>counter</c>: ticks by the clock or on request, from a nonce that it makes at boot.</summary>
internal sealed class CounterGuest : ScriptedGuest
{
    private const int UsageError = 64;
    private const GuestEvents Events = GuestEvents.StopRequested | GuestEvents.ConsoleInput;

    private bool _isBooted;
    private TimeSpan _period = TimeSpan.FromSeconds(1);
    private uint _ticks;
    private bool _isQuiet;
    private ulong _nonce;
    private uint _tick;
    private TimeSpan? _deadline;
    private TimeSpan _gap;
    private string _mark = "";
    private GuestRequest? _asked;

    public override GuestStep Step(ScriptedGuestContext context)
    {
        if (!_isBooted)
        {
            return Boot(context);
        }

        Report(context);
        GuestStep? end = context.IsStopRequested ? Stopping(context) : Obey(context) ?? TickWhenDue(context);
        return end ?? GuestStep.Wait(Events, _deadline);
    }

    public override ScriptedGuest Clone() => (ScriptedGuest)MemberwiseClone();

    public override byte[] Save()
    {
        using MemoryStream stream = new();
        using BinaryWriter writer = new(stream);
        writer.Write(_isBooted);
        writer.Write(_period.Ticks);
        writer.Write(_ticks);
        writer.Write(_isQuiet);
        writer.Write(_nonce);
        writer.Write(_tick);
        writer.Write(_deadline?.Ticks ?? -1);
        writer.Write(_gap.Ticks);
        writer.Write(_mark);
        writer.Write((byte)(_asked is { } asked ? (int)asked + 1 : 0));
        writer.Flush();
        return stream.ToArray();
    }

    public override void Load(ReadOnlySpan<byte> saved)
    {
        using MemoryStream stream = new(saved.ToArray());
        using BinaryReader reader = new(stream);
        _isBooted = reader.ReadBoolean();
        _period = TimeSpan.FromTicks(reader.ReadInt64());
        _ticks = reader.ReadUInt32();
        _isQuiet = reader.ReadBoolean();
        _nonce = reader.ReadUInt64();
        _tick = reader.ReadUInt32();
        long deadline = reader.ReadInt64();
        _deadline = deadline < 0 ? null : TimeSpan.FromTicks(deadline);
        _gap = TimeSpan.FromTicks(reader.ReadInt64());
        _mark = reader.ReadString();
        int asked = reader.ReadByte();
        _asked = asked == 0 ? null : (GuestRequest)(asked - 1);
    }

    private static ulong Generation(ScriptedGuestContext context) => BinaryPrimitives.ReadUInt64BigEndian(context.GenerationId.Span);

    private static GuestStep Stopping(ScriptedGuestContext context)
    {
        context.WriteLine("stopping");
        return GuestStep.Exit(0);
    }

    private GuestStep Boot(ScriptedGuestContext context)
    {
        _isBooted = true;
        for (int i = 1, used; i < context.Args.Count; i += used)
        {
            used = Parse(context.Args[i], i + 1 < context.Args.Count ? context.Args[i + 1] : null);
            if (used == 0)
            {
                context.WriteLine($"counter: bad argument '{context.Args[i]}'");
                context.WriteLine("usage: counter [--period-ms N] [--pages N] [--arena-mb N] [--random] [--touch] [--ticks N] [--quiet]");
                return GuestStep.Exit(UsageError);
            }
        }

        Span<byte> nonce = stackalloc byte[sizeof(ulong)];
        context.FillRandom(nonce);
        _nonce = BinaryPrimitives.ReadUInt64LittleEndian(nonce);
        _deadline = _period > TimeSpan.Zero ? context.Monotonic + _period : null;
        return GuestStep.Wait(Events, _deadline);
    }

    private int Parse(string name, string? value)
    {
        bool hasNumber = ulong.TryParse(value, NumberStyles.None, CultureInfo.InvariantCulture, out ulong number);
        switch (name)
        {
            case "--period-ms" when hasNumber && number <= 1_000_000_000:
                _period = TimeSpan.FromMilliseconds(number);
                return 2;
            case "--ticks" when hasNumber && number <= uint.MaxValue:
                _ticks = (uint)number;
                return 2;
            case "--quiet":
                _isQuiet = true;
                return 1;
            // There is no memory that could be dirtied.
            case "--pages" or "--arena-mb" when hasNumber:
                return 2;
            case "--random" or "--touch":
                return 1;
            default:
                return 0;
        }
    }

    private GuestStep? Obey(ScriptedGuestContext context)
    {
        while (context.ReadLine() is { } line)
        {
            if (Obey(context, line) is { } end)
            {
                return end;
            }
        }

        return null;
    }

    private GuestStep? Obey(ScriptedGuestContext context, string line)
    {
        if (line.StartsWith("mark ", StringComparison.Ordinal))
        {
            _mark = line[5..];
        }
        else if (line.StartsWith("exit ", StringComparison.Ordinal)
            && int.TryParse(line[5..], NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out int code))
        {
            return GuestStep.Exit(code);
        }
        else if (string.Equals(line, "template", StringComparison.Ordinal))
        {
            _asked = GuestRequest.Template;
            return GuestStep.BecomeTemplate;
        }
        else if (string.Equals(line, "fork", StringComparison.Ordinal))
        {
            _asked = GuestRequest.Fork;
            return GuestStep.Fork;
        }
        else if (string.Equals(line, "show", StringComparison.Ordinal))
        {
            context.WriteLine($"mark={_mark}");
        }
        else if (string.Equals(line, "tick", StringComparison.Ordinal))
        {
            return Tick(context, print: true);
        }
        else
        {
            context.WriteLine($"unknown: {line}");
        }

        return null;
    }

    private void Report(ScriptedGuestContext context)
    {
        switch (_asked)
        {
            case GuestRequest.Template:
                context.WriteLine(context.RequestError == 0 ? $"cloned gen={Generation(context):x16}" : $"template error={context.RequestError}");
                break;
            case GuestRequest.Fork when context.RequestError != 0:
                context.WriteLine($"fork error={context.RequestError}");
                break;
            case GuestRequest.Fork when context.IsForkChild:
                context.WriteLine($"fork child uuid={context.ForkChild} gen={Generation(context):x16}");
                break;
            case GuestRequest.Fork:
                context.WriteLine($"fork parent child={context.ForkChild}");
                break;
        }

        _asked = null;
    }

    private GuestStep? TickWhenDue(ScriptedGuestContext context)
    {
        TimeSpan now = context.Monotonic;
        if (_deadline is not { } deadline || now < deadline)
        {
            return null;
        }

        // Being woken late is a gap. Ticks that were missed are not made up for.
        _gap = now - deadline > _gap ? now - deadline : _gap;
        _deadline = deadline + _period < now ? now + _period : deadline + _period;
        return Tick(context, print: !_isQuiet);
    }

    private GuestStep? Tick(ScriptedGuestContext context, bool print)
    {
        _tick++;
        if (print)
        {
            context.WriteLine($"nonce={_nonce:x16} tick={_tick} gap_us={(long)_gap.TotalMicroseconds} gen={Generation(context):x16}");
        }

        return _ticks != 0 && _tick >= _ticks ? GuestStep.Exit(0) : null;
    }
}
