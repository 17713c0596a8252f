using System.Globalization;
using System.Text;

namespace Unikraft.Platform.Kvm.Tests.Testing;

/// <summary>An initial RAM disk: an archive in the "newc" format.</summary>
internal sealed class CpioArchive
{
    private const int Folder = 0x41ED;
    private const int Program = 0x81ED;
    private const int CharacterDevice = 0x2180;
    private const int Alignment = 4;

    private readonly MemoryStream _archive = new();
    private int _entries;

    internal CpioArchive AddFolder(string name) => Add(name, Folder, []);

    internal CpioArchive AddProgram(string name, ReadOnlySpan<byte> content) => Add(name, Program, content);

    internal CpioArchive AddDevice(string name, int major, int minor) => Add(name, CharacterDevice, [], major, minor);

    internal byte[] Build()
    {
        Add("TRAILER!!!", 0, []);
        return _archive.ToArray();
    }

    private CpioArchive Add(string name, int mode, ReadOnlySpan<byte> content, int major = 0, int minor = 0)
    {
        int[] fields = [++_entries, mode, 0, 0, 1, 0, content.Length, 0, 0, major, minor, name.Length + 1, 0];
        StringBuilder header = new("070701");
        foreach (int field in fields)
        {
            header.Append(CultureInfo.InvariantCulture, $"{field:X8}");
        }

        _archive.Write(Encoding.ASCII.GetBytes(header + name + "\0"));
        Align();
        _archive.Write(content);
        Align();
        return this;
    }

    private void Align()
    {
        while (_archive.Length % Alignment != 0)
        {
            _archive.WriteByte(0);
        }
    }
}
