using System.Text;
using Unikraft.Platform.Hypervisors;
using Unikraft.Platform.Kvm.Boot;
using Unikraft.Platform.Kvm.Memory;
using Unikraft.Platform.TestKit;

namespace Unikraft.Platform.Kvm.Tests.Boot;

public sealed class InfoPageTests
{
    private const int Room = 44 << 10;
    private const long Info = FlatGuestLayout.InfoAddress;

    private static readonly FlatGuestLayout Layout = new(ElfImage.Parse("info.elf", ElfBuilder.Program().Build()), 5 << 20, 3);

    [Fact]
    public void Every_field_is_where_the_abi_says()
    {
        using GuestMemory memory = new(Layout.MemorySize);
        Guid uuid = Guid.Parse("00112233-4455-6677-8899-aabbccddeeff");
        Dictionary<string, string> environment = new(StringComparer.Ordinal) { ["A"] = "", ["B"] = "x=y" };

        InfoPage.Write(memory, Layout, Strings("näme", ["", "two words"], environment));
        InfoPage.WriteIdentity(memory, uuid);
        InfoPage.WriteTscKhz(memory, 2_345_678);
        InfoPage.WriteEvents(memory, 3);

        Assert.Equal("UKPI"u8, memory.Read(Info, 4));
        Assert.Equal(0x0001_0002u, memory.Read<uint>(Info + 4));
        Assert.Equal(5UL << 20, memory.Read<ulong>(Info + 8));
        Assert.Equal(3u, memory.Read<uint>(Info + 16));
        Assert.Equal(3u, memory.Read<uint>(Info + 20));
        Assert.Equal(["näme", "", "two words"], ReadStrings(memory, 24));
        Assert.Equal(["A=", "B=x=y"], ReadStrings(memory, 32));
        Assert.Equal((ulong)Layout.HeapStart, memory.Read<ulong>(Info + 40));
        Assert.Equal(5UL << 20, memory.Read<ulong>(Info + 48));
        Assert.Equal(2_345_678UL, memory.Read<ulong>(Info + 56));
        Assert.True(memory.Read(Info + 64, 16).ContainsAnyExcept((byte)0));
        Assert.Equal("00112233445566778899AABBCCDDEEFF", Convert.ToHexString(memory.Read(Info + 80, 16)));
        Assert.Equal(3u, memory.Read<uint>(Info + 96));
        Assert.Equal(256u << 10, memory.Read<uint>(Info + 100));
    }

    [Fact]
    public void Disks_are_told_of_by_slot_and_forgotten_when_they_are_gone()
    {
        using GuestMemory memory = new(Layout.MemorySize);
        MachineDisk volume = new() { Slot = 1, Device = new MemoryBlockDevice(512), Id = "a", At = "/data/ä" };
        MachineDisk rom = new() { Slot = 11, Device = new MemoryBlockDevice(512, isReadOnly: true), Id = "b", At = new string('x', 240) };

        InfoPage.WriteDisks(memory, [rom, volume]);

        long table = memory.Read<long>(Info + 104);
        Assert.Equal(0xF_0400, table);
        Assert.Equal(12u, memory.Read<uint>(Info + 112));
        Assert.Equal((0u, 1u, 3u), (memory.Read<uint>(table), memory.Read<uint>(table + 256), memory.Read<uint>(table + 11 * 256)));
        Assert.Equal("/data/ä\0"u8, memory.Read(table + 256 + 8, 9));
        Assert.Equal((byte)'x', memory.Read<byte>(table + 11 * 256 + 8 + 239));
        Assert.Equal((byte)0, memory.Read<byte>(table + 11 * 256 + 8 + 240));

        InfoPage.WriteDisks(memory, []);

        Assert.False(memory.Read(table, 12 * 256).ContainsAnyExcept((byte)0));
    }

    [Fact]
    public void Every_identity_is_another_one()
    {
        using GuestMemory memory = new(Layout.MemorySize);
        HashSet<string> identities = [];
        for (int i = 0; i < 100; i++)
        {
            InfoPage.WriteIdentity(memory, Guid.NewGuid());
            Assert.True(identities.Add(Convert.ToHexString(memory.Read(Info + 64, 16))));
        }
    }

    [Fact]
    public void Strings_fit_to_the_last_byte_and_no_further()
    {
        // Three pointers of the arrays of "n", its terminator and the empty environment, then the string itself.
        const int Fixed = 4 * sizeof(ulong) + 2;
        using GuestMemory memory = new(Layout.MemorySize);

        InfoPage.Write(memory, Layout, Strings("n", [new string('x', Room - Fixed - 1)]));

        Assert.Equal((byte)'x', memory.Read<byte>(FlatGuestLayout.StringsEnd - 2));
        Assert.Equal(0, memory.Read<byte>(FlatGuestLayout.StringsEnd - 1));
        InvalidRequestException error = Assert.Throws<InvalidRequestException>(
            () => InfoPage.Write(memory, Layout, Strings("n", [new string('x', Room - Fixed)])));
        Assert.Equal("The arguments and the environment take more than the 44 KiB a flat guest has for them.", error.Message);
    }

    [Theory]
    [InlineData(5_700)]
    [InlineData(100_000)]
    public void Too_many_strings_are_refused_however_short(int count)
    {
        using GuestMemory memory = new(Layout.MemorySize);
        Assert.Throws<InvalidRequestException>(() => InfoPage.Write(memory, Layout, Strings("n", [.. Enumerable.Repeat("", count)])));
        AssertNothingBehindTheStrings(memory);
    }

    [Fact]
    public void Too_large_an_environment_is_refused()
    {
        using GuestMemory memory = new(Layout.MemorySize);
        Dictionary<string, string> environment = Enumerable.Range(0, 3_000).ToDictionary(i => $"NAME{i}", i => "value", StringComparer.Ordinal);
        Assert.Throws<InvalidRequestException>(() => InfoPage.Write(memory, Layout, Strings("n", [], environment)));
        AssertNothingBehindTheStrings(memory);
    }

    [Fact]
    public void Bytes_count_and_not_characters()
    {
        using GuestMemory memory = new(Layout.MemorySize);
        Assert.Throws<InvalidRequestException>(() => InfoPage.Write(memory, Layout, Strings("n", [new string('€', Room / 3)])));
    }

    [Theory]
    [InlineData("na\0me", "arg", "NAME", "value", "Arguments and environment cannot contain a NUL character.")]
    [InlineData("name", "a\0rg", "NAME", "value", "Arguments and environment cannot contain a NUL character.")]
    [InlineData("name", "arg", "NA\0ME", "value", "Arguments and environment cannot contain a NUL character.")]
    [InlineData("name", "arg", "NAME", "\0", "Arguments and environment cannot contain a NUL character.")]
    [InlineData("name", "arg", "", "value", "'' is not a name of an environment variable: it is empty or contains '='.")]
    [InlineData("name", "arg", "NA=ME", "value", "'NA=ME' is not a name of an environment variable: it is empty or contains '='.")]
    public void What_cannot_be_passed_is_refused(string name, string argument, string variable, string value, string message)
    {
        Dictionary<string, string> environment = new(StringComparer.Ordinal) { [variable] = value };
        Assert.Equal(message, Assert.Throws<InvalidRequestException>(() => Strings(name, [argument], environment)).Message);
    }

    private static void AssertNothingBehindTheStrings(GuestMemory memory) =>
        Assert.False(memory.Read(FlatGuestLayout.StringsEnd, (int)(FlatGuestLayout.DeviceVirtualAddress - FlatGuestLayout.StringsEnd)).ContainsAnyExcept((byte)0));

    private static GuestStrings Strings(string name, string[] args, Dictionary<string, string>? environment = null) =>
        GuestStrings.From(new MachineConfiguration
        {
            Uuid = Guid.NewGuid(),
            Name = name,
            Image = "info.elf",
            Vcpus = 1,
            MemoryMb = 5,
            Args = args,
            Env = environment ?? [],
        });

    private static List<string> ReadStrings(GuestMemory memory, int field)
    {
        List<string> strings = [];
        for (long pointer = memory.Read<long>(Info + field); memory.Read<long>(pointer) is not 0 and long text; pointer += sizeof(long))
        {
            ReadOnlySpan<byte> rest = memory.Read(text, (int)(FlatGuestLayout.StringsEnd - text));
            strings.Add(Encoding.UTF8.GetString(rest[..rest.IndexOf((byte)0)]));
        }

        return strings;
    }
}
