using System.Globalization;
using System.Security.Cryptography;
using System.Text;
using Unikraft.Platform.Hypervisors;

namespace Unikraft.Platform.InMemory.Guests;

/// <summary><c>kv</c>: keeps keys and values on the disk in slot 0, or in another one by <c>--disk SLOT</c>, in a journal of one sector for each change, and obeys most of the flat guest's commands.</summary>
internal sealed class KvGuest : ScriptedGuest
{
    private const int SectorSize = 512;
    private const int DigestSize = 32;
    private const int MinSize = 64 << 10;
    private const int NoDisk = 65;
    private const int Foreign = 66;
    private const int CannotRead = 74;

    private Dictionary<string, string> _entries = new(StringComparer.Ordinal);
    private bool _isOpen;
    private int _last;
    private int _slot;

    public override GuestStep Step(ScriptedGuestContext context)
    {
        if (!_isOpen)
        {
            return Open(context);
        }

        if (context.IsStopRequested)
        {
            context.WriteLine("stopping");
            return GuestStep.Exit(0);
        }

        if (context.ReadLine() is not { } line)
        {
            return GuestStep.Wait(GuestEvents.StopRequested | GuestEvents.ConsoleInput);
        }

        Obey(context, line.Split(' ', 3));
        return GuestStep.Continue;
    }

    public override ScriptedGuest Clone()
    {
        KvGuest clone = (KvGuest)MemberwiseClone();
        clone._entries = new Dictionary<string, string>(_entries, StringComparer.Ordinal);
        return clone;
    }

    public override byte[] Save()
    {
        using MemoryStream stream = new();
        using BinaryWriter writer = new(stream);
        writer.Write(_isOpen);
        writer.Write(_last);
        writer.Write(_slot);
        writer.Write(_entries.Count);
        foreach ((string key, string value) in _entries)
        {
            writer.Write(key);
            writer.Write(value);
        }

        writer.Flush();
        return stream.ToArray();
    }

    public override void Load(ReadOnlySpan<byte> saved)
    {
        // In snapshots of earlier versions the disk is always that in slot 0, and there is no word of it.
        if (!TryLoad(saved, hasSlot: true) && !TryLoad(saved, hasSlot: false))
        {
            throw new InvalidDataException("It is not what the guest 'kv' has saved.");
        }
    }

    private bool TryLoad(ReadOnlySpan<byte> saved, bool hasSlot)
    {
        using MemoryStream stream = new(saved.ToArray());
        using BinaryReader reader = new(stream);
        _entries.Clear();
        try
        {
            _isOpen = reader.ReadBoolean();
            _last = reader.ReadInt32();
            _slot = hasSlot ? reader.ReadInt32() : 0;
            for (int count = reader.ReadInt32(); count > 0; count--)
            {
                string key = reader.ReadString();
                _entries[key] = reader.ReadString();
            }

            return stream.Position == stream.Length;
        }
        catch (Exception error) when (error is EndOfStreamException or FormatException)
        {
            return false;
        }
    }

    private static byte[] Format(int number, string key, string? value)
    {
        byte[] sector = new byte[SectorSize];
        string text = value is null ? $"{number} {key}" : $"{number} {key} {value}";
        Encoding.UTF8.GetBytes(text, sector.AsSpan(DigestSize));
        SHA256.HashData(sector.AsSpan(DigestSize), sector);
        return sector;
    }

    private static string? Parse(ReadOnlySpan<byte> sector) =>
        SHA256.HashData(sector[DigestSize..]).AsSpan().SequenceEqual(sector[..DigestSize])
            ? Encoding.UTF8.GetString(sector[DigestSize..]).TrimEnd('\0')
            : null;

    private GuestStep Open(ScriptedGuestContext context)
    {
        _isOpen = true;
        _slot = context.Args.SkipWhile(static arg => !string.Equals(arg, "--disk", StringComparison.Ordinal)).Skip(1).FirstOrDefault() is { } slot
            ? int.Parse(slot, CultureInfo.InvariantCulture)
            : 0;
        if (context.Disks.FirstOrDefault(disk => disk.Slot == _slot) is not { } disk)
        {
            context.WriteLine(string.Create(CultureInfo.InvariantCulture, $"kv: no disk in slot {_slot}: error 19"));
            return GuestStep.Exit(NoDisk);
        }

        if (disk.Device.Size < MinSize)
        {
            context.WriteLine("kv: the volume holds something else");
            return GuestStep.Exit(Foreign);
        }

        if (Replay(context, disk, _entries, out _last) is var error and not 0)
        {
            context.WriteLine($"kv: the volume cannot be read: error {error}");
            return GuestStep.Exit(CannotRead);
        }

        context.WriteLine(string.Create(CultureInfo.InvariantCulture, $"kv ready keys={_entries.Count} last={_last} epoch=1 at={disk.At}"));
        return GuestStep.Continue;
    }

    private static int Replay(ScriptedGuestContext context, MachineDisk disk, Dictionary<string, string> entries, out int last)
    {
        byte[] sector = new byte[SectorSize];
        for (last = 0; (last + 1L) * SectorSize <= disk.Device.Size; last++)
        {
            if (context.ReadDisk(disk.Slot, last * (long)SectorSize, sector) is var error and not 0)
            {
                return error;
            }

            string[] parts = (Parse(sector) ?? "").Split(' ', 3);
            if (!string.Equals(parts[0], (last + 1).ToString(CultureInfo.InvariantCulture), StringComparison.Ordinal))
            {
                break;
            }

            if (parts.Length == 3)
            {
                entries[parts[1]] = parts[2];
            }
            else
            {
                entries.Remove(parts[1]);
            }
        }

        return 0;
    }

    private void Obey(ScriptedGuestContext context, string[] words)
    {
        switch (words)
        {
            case ["put", { } key, { } value]:
                Change(context, "put", key, value);
                break;
            case ["del", { } key]:
                Change(context, "del", key, value: null);
                break;
            case ["get", { } key]:
                context.WriteLine(_entries.TryGetValue(key, out string? found) ? $"value={found}" : "none");
                break;
            case ["count"]:
                context.WriteLine(string.Create(CultureInfo.InvariantCulture, $"keys={_entries.Count} last={_last}"));
                break;
            case ["check"]:
                Check(context);
                break;
            default:
                context.WriteLine("what?");
                break;
        }
    }

    private void Change(ScriptedGuestContext context, string command, string key, string? value)
    {
        int error = context.WriteDisk(_slot, _last * (long)SectorSize, Format(_last + 1, key, value));
        error = error == 0 ? context.FlushDisk(_slot) : error;
        if (error != 0)
        {
            context.WriteLine(string.Create(CultureInfo.InvariantCulture, $"{command} error={error}"));
            return;
        }

        _last++;
        if (value is null)
        {
            _entries.Remove(key);
        }
        else
        {
            _entries[key] = value;
        }

        context.WriteLine(string.Create(CultureInfo.InvariantCulture, $"ok {_last}"));
    }

    private void Check(ScriptedGuestContext context)
    {
        Dictionary<string, string> entries = new(StringComparer.Ordinal);
        int error = Replay(context, context.Disks.First(disk => disk.Slot == _slot), entries, out int last);
        context.WriteLine(error != 0
            ? string.Create(CultureInfo.InvariantCulture, $"check error={error}")
            : last != _last || entries.Count != _entries.Count || entries.Except(_entries).Any()
                ? "check failed: the volume and the memory differ"
                : string.Create(CultureInfo.InvariantCulture, $"check ok records={last} keys={entries.Count} last={last}"));
    }
}
